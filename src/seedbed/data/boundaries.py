"""Where a text that is too long is best cut: between paragraphs, else lines, else words."""

from __future__ import annotations

import re


def paragraph_boundary(text: str, near: int) -> int:
    """Where to cut `text` in two near a position: at a blank line, else a line's end, else a space, else there.

    The cut lies after the boundary and strictly inside the text, which must have two characters or more.
    """
    near = min(max(near, 1), len(text) - 1)
    # A boundary may lie an eighth of the text away, and for long texts no more than 64 Ki characters.
    reach = min(max(len(text) // 8, 1), 1 << 16)
    low, high = max(near - reach, 0), min(near + reach, len(text))
    for boundary in (r"\n\s*\n", r"\n", r"[^\S\n]"):
        ends = [low + match.end() for match in re.finditer(boundary, text[low:high])]
        ends = [end for end in ends if 0 < end < len(text)]
        if ends:
            return min(ends, key=lambda end: abs(end - near))
    return near


def last_boundary(data: bytes, limit: int) -> int:
    """The last good place to cut UTF-8, longer than `limit`, within so many bytes, not before three quarters of them;
    else there, but never inside a character."""
    for mark in (b"\n\n", b"\n", b" "):
        if (at := data.rfind(mark, limit * 3 // 4, limit)) >= 0:
            return at + len(mark)
    while limit > 1 and data[limit] & 0xC0 == 0x80:  # inside a character
        limit -= 1
    return limit
