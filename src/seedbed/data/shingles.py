"""Words and their n-grams as hashes: what repetition, contamination and near-duplicates are told by.

A word is a run of letters and digits in lower case, so that case, punctuation and white space make no difference.
Hashes have 64 bits: among a billion n-grams, two different ones share one with a chance of 3%.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

WORD = re.compile(r"\w+")
ASCII_GAPS = {code: " " for code in range(128) if not WORD.match(chr(code))}
BASE = np.uint64(0x9E3779B97F4A7C17)
"""Odd, so that no bit of a word's hash is lost by multiplying."""


def words(text: str) -> list[str]:
    """The normalised words of a text, in order. Python counts `_` as a letter."""
    text = text.lower()
    if text.isascii():  # four times as fast, with the same result
        return text.translate(ASCII_GAPS).split()
    return WORD.findall(text)


def word_hashes(words: Sequence[str]) -> NDArray[np.uint64]:
    """A hash for each word."""
    if len(_HASHES) > _HASHES.most:
        _HASHES.clear()
    return np.fromiter(map(_HASHES.__getitem__, words), np.uint64, len(words))


def ngram_hashes(hashes: NDArray[np.uint64], n: int) -> NDArray[np.uint64]:
    """A hash for each run of `n` words, from the hashes of the words: len(hashes) − n + 1 of them, or none."""
    count = max(len(hashes) - n + 1, 0)
    combined = np.zeros(count, np.uint64)
    for offset in range(n):  # Horner's rule, modulo 2^64
        combined *= BASE
        combined += hashes[offset : offset + count]
    return combined


class _Hashes(dict[str, int]):
    """Hashes of words met before, since most are met again. Emptied when it holds `most`: some 20 MB."""

    most = 1 << 17

    def __missing__(self, word: str) -> int:
        self[word] = value = xxhash.xxh3_64_intdigest(word.encode())
        return value


_HASHES = _Hashes()
