"""Texts that are too short or too long."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

from seedbed.data.cleaning.dropped import Dropped


def check_length(text: str, least: int) -> None:
    """Raises Dropped for a text of fewer characters, white space around it not counted."""
    if len(text.strip()) < least:
        raise Dropped("too short")


def split(text: str, longest: int, counts: Counter[str]) -> list[str]:
    """The text in parts of at most `longest` characters (100 or more), cut at paragraphs where it has them. Joined, the
    parts are the text; none is shorter than an eighth of `longest`. Takes linear time."""
    cuts = [0]
    while len(text) - cuts[-1] > longest:
        window = text[cuts[-1] : cuts[-1] + longest]
        cuts.append(cuts[-1] + paragraph_boundary(window, longest * 3 // 4))
    if len(cuts) > 1:
        counts["split: too long"] += 1
    return [text[start:end] for start, end in pairwise([*cuts, len(text)])]


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
