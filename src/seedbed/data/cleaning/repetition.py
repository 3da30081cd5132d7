"""Texts that repeat themselves: Rae et al. 2021 (Gopher, arXiv:2112.11446), table A1, whole.

Shares are of the characters of the text, as datatrove reads the table: repeats of a line, paragraph or n-gram beyond
the first, and all occurrences of the most frequent n-gram. The characters of an n-gram are those of its words
(`shingles`), of the most frequent one with a space between. Two points are read otherwise. A word in several repeated
n-grams counts once and no n-gram is passed over ("taking care not to count characters that occur in overlapping n-grams
more than once"). And an n-gram that occurs once is not a frequent one, so no text is dropped for being short.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seedbed.data.cleaning.dropped import Dropped
from seedbed.data.shingles import ngram_hashes

LINES, LINE_CHARACTERS = 0.30, 0.20
PARAGRAPHS, PARAGRAPH_CHARACTERS = 0.30, 0.20
TOP = {2: 0.20, 3: 0.18, 4: 0.16}
REPEATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
BLANK_LINES = re.compile(r"\n\s*\n")


def check_repetition(text: str, words: Sequence[str], hashes: NDArray[np.uint64]) -> None:
    """Raises Dropped for a text that repeats too much; `words` and their `hashes` are those of `shingles`."""
    _check_pieces(text, "paragraphs", BLANK_LINES.split(text), PARAGRAPHS, PARAGRAPH_CHARACTERS)
    _check_pieces(text, "lines", text.split("\n"), LINES, LINE_CHARACTERS)
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    for n, limit in TOP.items():
        if top_characters(ngram_hashes(hashes, n), lengths, n) > limit * len(text):
            raise Dropped(f"one {n}-gram repeats")
    for n, limit in REPEATED.items():
        repeated = repeated_characters(ngram_hashes(hashes, n), lengths, n)
        if repeated > limit * len(text):
            raise Dropped(f"{n}-grams repeat")
        if repeated <= min(REPEATED.values()) * len(text):
            return  # a repeated longer n-gram is made of repeated shorter ones: their characters can only be fewer


def _check_pieces(text: str, name: str, pieces: Sequence[str], most: float, most_characters: float) -> None:
    pieces = [piece for piece in map(str.strip, pieces) if piece]
    first = set(pieces)
    if len(first) == len(pieces):
        return
    if len(pieces) - len(first) > most * len(pieces):
        raise Dropped(f"{name} repeat")
    if sum(map(len, pieces)) - sum(map(len, first)) > most_characters * len(text):
        raise Dropped(f"characters of {name} repeat")


def top_characters(ngrams: NDArray[np.uint64], lengths: NDArray[np.int64], n: int) -> int:
    """Characters of all occurrences of the most frequent n-gram, of several the longest; 0 when none occurs twice."""
    if len(ngrams) < 2:
        return 0
    order = np.argsort(ngrams)
    ordered = ngrams[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    counts = np.diff(starts, append=len(ordered))
    most = counts.max()
    if most == 1:
        return 0
    tops = order[starts[counts == most]]
    before = np.append(0, np.cumsum(lengths))
    return int(most * ((before[tops + n] - before[tops]).max() + n - 1))


def repeated_characters(ngrams: NDArray[np.uint64], lengths: NDArray[np.int64], n: int) -> int:
    """Characters of the words that lie in an n-gram that occurred before."""
    order = np.argsort(ngrams, kind="stable")
    ordered = ngrams[order]
    again = order[1:][ordered[1:] == ordered[:-1]]
    if len(again) == 0:
        return 0
    edges = np.zeros(len(lengths) + 1, np.int64)  # +1 where a repeated n-gram begins, −1 behind its end
    edges[again] += 1
    edges[again + n] -= 1
    return int(lengths[np.cumsum(edges[:-1]) > 0].sum())
