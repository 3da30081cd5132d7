"""Texts as sequences of normalised words, and words and runs of words as 64-bit hashes.

Near-duplicates, repetition and decontamination all compare texts by these. The hashes are the same in every process and
on every machine; only a newer Unicode in a newer Python may tell letters from signs differently.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seedbed.data.splitmix import mix

NON_ASCII = re.compile("[^\x00-\x7f]+")
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u31f0-\u31ff"  # Thai, Lao, Burmese, Khmer, kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"  # Chinese characters
)
"""Letters of scripts that put no space between words: each counts as a word."""
VARIATION_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")
WORDS_AT_ONCE = 1 << 14
"""Words are hashed in pieces of so many, which bounds memory and stays in the processor's cache."""
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio, odd: the step of SplitMix64."""


class _Replacements(dict[int, str]):
    """What stands for a character beyond ASCII: itself, a space, or nothing. Filled as characters turn up."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if category == "Cf" or VARIATION_SELECTORS.match(character):
            replacement = ""  # invisible: soft hyphens, joiners, marks of direction
        elif category[0] not in "LMN":  # marks belong to words: without them Hindi would lose its vowels
            replacement = " "
        else:
            replacement = f" {character} " if UNSPACED.match(character) else character
        self[code] = replacement
        return replacement


_REPLACEMENTS = _Replacements()
_ASCII = bytes(code if code > 127 or chr(code).isalnum() or chr(code) == "_" else 32 for code in range(256))
"""For bytes.translate: a space for every sign of ASCII; the bytes of other characters stay."""


def words(text: str) -> list[str]:
    """The words of a text: Unicode NFKC, case folded, without punctuation, symbols and white space.

    A word is a run of letters, marks, numbers and underscores; a letter of a script without spaces is a word alone.
    """
    if text.isascii():
        plain = text.lower()
    else:
        plain = unicodedata.normalize("NFKC", text).casefold()
        plain = NON_ASCII.sub(lambda run: run[0].translate(_REPLACEMENTS), plain)
    return plain.encode().translate(_ASCII).decode().split()


def sequence_hashes(values: NDArray[np.uint64], bounds: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The hash of each sequence values[bounds[i] : bounds[i + 1]], all at once.

    The sum of SplitMix64 (Steele, Lea and Flood 2014) over the values and their places in the sequence.
    """
    places = np.arange(bounds[0], bounds[-1]) - np.repeat(bounds[:-1] - 1, np.diff(bounds))  # from 1
    terms = mix(values[bounds[0] : bounds[-1]] + places.astype(np.uint64) * GOLDEN)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms)])
    return mix(np.diff(sums[bounds - bounds[0]]))


def word_hashes(words: Sequence[str]) -> NDArray[np.uint64]:
    """The hash of each word, for words as `words` returns them: not empty and without spaces."""
    pieces = [np.empty(0, np.uint64)]
    for start in range(0, len(words), WORDS_AT_ONCE):
        letters = np.frombuffer((" ".join(words[start : start + WORDS_AT_ONCE]) + " ").encode(), np.uint8)
        ends = np.flatnonzero(letters == ord(" ")) + 1  # a word ends with its space, which tells its length
        pieces.append(sequence_hashes(letters.astype(np.uint64), np.concatenate([[0], ends])))
    return np.concatenate(pieces)


def ngram_hashes(hashes: NDArray[np.uint64], n: int) -> NDArray[np.uint64]:
    """The hash of every run of `n` words, from the hashes of the words; empty when there are fewer than `n` words."""
    count = max(len(hashes) - n + 1, 0)
    combined = np.zeros(count, dtype=np.uint64)
    for offset in range(n):
        combined *= GOLDEN
        combined += hashes[offset : offset + count]
    return mix(combined)
