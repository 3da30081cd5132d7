"""Characters that nobody sees: controls, zero-width marks, marks of direction, byte order marks."""

from __future__ import annotations

import re
from collections import Counter

UNSEEN = re.compile(
    "[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]"
)
"""Line ends and tabs stay, and the joiners U+200C and U+200D, which Persian, Hindi and emoji are spelt with."""


def strip_control_characters(text: str, counts: Counter[str]) -> str:
    """The text without them; counted once a text."""
    stripped = UNSEEN.sub("", text)
    if len(stripped) < len(text):
        counts["mended: control characters"] += 1
    return stripped
