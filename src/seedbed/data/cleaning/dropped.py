"""How a rule says that a text does not belong in the corpus."""

from __future__ import annotations


class Dropped(Exception):
    """A text is left out. Its message is the reason, a short fixed phrase that stats.json counts by."""
