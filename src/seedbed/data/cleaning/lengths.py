"""Texts that are too short or too long."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from seedbed.data.boundaries import paragraph_boundary
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
