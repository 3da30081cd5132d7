"""Web addresses."""

from __future__ import annotations

import re
from collections import Counter

_END = r"\s<>\"'()\[\]{}`"
ADDRESS = re.compile(
    rf"<(?:(?:https?|ftp)://|www\.)[^{_END}]++>|\((?:(?:https?|ftp)://|www\.)[^{_END}]++\)"
    rf"|(?<![a-z0-9])(?:(?:https?|ftp)://|www\.)[^{_END}]*[^{_END}.,;:!?]",
    re.IGNORECASE,
)
"""With brackets that hold nothing else, so that of a Markdown link its [text] stays. So does the end of a sentence."""


def strip_addresses(text: str, counts: Counter[str]) -> str:
    """The text without web addresses; each is counted."""
    lowered = text.lower()
    if "://" not in lowered and "www." not in lowered:
        return text
    text, found = ADDRESS.subn("", text)
    if found:
        counts["stripped: web address"] += found
    return text
