"""From raw text to batches: sources, the corpus, the token store, conversations, preferences, and `batches`.

Nothing is imported here: torch comes with the module that needs it.
"""
