"""What a model should say rather than something else: rewards, preferences, policies.

Nothing is imported here: torch comes with the module that needs it.
"""
