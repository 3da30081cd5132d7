"""From raw text to batches: sources, the corpus, the token store, order, loading and packing.

Nothing is imported here: torch comes with the module that needs it.
"""
