"""Lines and paragraphs of a text, as hashes of their normalised words.

Repeats across documents are mostly furniture of web pages and books: menus, licences, running heads. CCNet (Wenzek et
al. 2020, arXiv:1911.00359, §3.1) removes every line it has seen before in a shard; here a text keeps its line if no
text of smaller SHA-256 holds the same, which does not depend on the order of reading, and repeats inside one text stay
(the repetition rule of cleaning judges those). Numbers are kept apart, where CCNet takes all digits for equal.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from seedbed.data.shingles import sequence_hashes, word_hashes, words

LEAST_WORDS = 3
"""Shorter lines and paragraphs stay: `Chapter I`, `The End`, a closing bracket mean what they mean anywhere."""


def split_lines(text: str) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """The words of a text; [lines + 1], the character where each line begins; [lines + 1], the word where it begins."""
    lines = text.split("\n")
    words_of_lines = [words(line) for line in lines]
    characters = np.fromiter(accumulate((len(line) + 1 for line in lines), initial=0), np.int64, len(lines) + 1)
    characters[-1] = len(text)  # no line end behind the last line
    counts = np.fromiter(accumulate(map(len, words_of_lines), initial=0), np.int64, len(lines) + 1)
    return [word for line in words_of_lines for word in line], characters, counts


def paragraph_starts(text: str) -> NDArray[np.int64]:
    """Numbers of the lines where a paragraph begins: the first line, and each that follows blank ones."""
    blank = np.array([not line or line.isspace() for line in text.split("\n")])
    return np.flatnonzero(~blank & np.concatenate([[True], blank[:-1]]))


def hash_spans(
    hashes: NDArray[np.uint64], characters: NDArray[np.int64], counts: NDArray[np.int64], kind: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """Hashes and [begin, end) characters of those spans that have LEAST_WORDS.

    `characters` and `counts` say where each span begins, and at last where they end; `hashes` are of the words, `kind`
    is the lowest bit of the result: 0 for lines, 1 for paragraphs.
    """
    long = np.diff(counts) >= LEAST_WORDS
    combined = sequence_hashes(hashes, counts)[long] & ~np.uint64(1) | np.uint64(kind)
    return combined, np.stack([characters[:-1], characters[1:]], axis=1)[long].astype(np.uint32)


def find_spans(text: str, lines: bool, paragraphs: bool) -> tuple[list[str], NDArray[np.uint64], NDArray[np.uint32]]:
    """Words of a text, and the hashes [n] and characters [n, 2] of its lines, its paragraphs or both.

    A line ends behind its line end, a paragraph where the next begins.
    """
    tokens, characters, counts = split_lines(text)
    hashes = word_hashes(tokens)
    found = []
    if lines:
        found.append(hash_spans(hashes, characters, counts, kind=0))
    if paragraphs:
        starts = paragraph_starts(text)
        starts = np.append(starts, len(characters) - 1)
        found.append(hash_spans(hashes, characters[starts], counts[starts], kind=1))
    return tokens, np.concatenate([part[0] for part in found]), np.concatenate([part[1] for part in found])
