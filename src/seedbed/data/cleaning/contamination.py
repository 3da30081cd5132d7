"""Benchmark rows in a text, found by the runs of words they share (Brown et al. 2020, GPT-3, appendix C)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seedbed.data.cleaning.benchmarks import read_strings
from seedbed.data.cleaning.dropped import Dropped
from seedbed.data.shingles import ngram_hashes, word_hashes, words
from seedbed.errors import DataError

Hashes = NDArray[np.uint64]

SHORTEST = 8
"""A benchmark string of fewer words is too common to prove anything: answers such as "true" or "New York"."""


class Contamination:
    """The runs of `length` words of benchmark files; a shorter string of at least SHORTEST words is one run.

    Each run begins with a head of min(SHORTEST, length) words. Heads are looked up for every place of a text; where one
    stands, and nowhere else, the runs that begin with it are compared. Raises DataError for a file without any run.
    """

    def __init__(self, files: Sequence[Path], length: int):
        self.names = [path.name for path in files]
        self.head = min(SHORTEST, length)
        heads: list[Hashes] = []
        runs: dict[int, list[Hashes]] = {n: [] for n in range(self.head, length + 1)}
        origins: dict[int, list[NDArray[np.uint32]]] = {n: [] for n in runs}
        for index, path in enumerate(files):
            hashes, remaining, first = _read(path)
            found = 0
            for n in runs:
                places = np.flatnonzero(remaining >= length if n == length else first & (remaining == n))
                heads.append(ngram_hashes(hashes, self.head)[places])
                runs[n].append(ngram_hashes(hashes, n)[places])
                origins[n].append(np.full(len(places), index, np.uint32))
                found += len(places)
            if not found:
                raise DataError(
                    f"{path} holds no text of {self.head} words or more to look for",
                    "A benchmark file holds its questions as rows or lines; is this the right one?",
                )
        self.heads = np.unique(np.concatenate(heads))
        self.runs = {n: _once(np.concatenate(runs[n]), np.concatenate(origins[n])) for n in runs}
        # A map of 16 bits a head, by the top bits of its hash, dismisses nearly all places of a text at one look each.
        bits = max((16 * len(self.heads)).bit_length(), 16)
        self.shift = np.uint64(64 - bits)
        spots = np.zeros(1 << bits, bool)
        spots[self.heads >> self.shift] = True
        self.map = np.packbits(spots, bitorder="little")

    def check(self, hashes: Hashes) -> None:
        """Raises Dropped, naming the benchmark, for a text with a run; `hashes` are those of its words."""
        heads = ngram_hashes(hashes, self.head)
        spots = heads >> self.shift
        places = np.flatnonzero((self.map[spots >> np.uint64(3)] >> (spots & np.uint64(7)).astype(np.uint8)) & 1)
        places = places[_among(heads[places], self.heads)]
        if len(places) == 0:
            return
        for n, (runs, origins) in self.runs.items():
            found = ngram_hashes(hashes, n)
            found = found[places[places < len(found)]]
            found = found[_among(found, runs)]
            if len(found):
                raise Dropped(f"benchmark {self.names[origins[np.searchsorted(runs, found[0])]]}")


def _read(path: Path) -> tuple[Hashes, NDArray[np.int64], NDArray[np.bool_]]:
    """Of all words of a file: the hash, how many words its string still has, and whether it is the string's first."""
    counts, hashes = [], []
    for text in read_strings(path):
        if found := words(text):
            counts.append(len(found))
            hashes.append(word_hashes(found))
    if not counts:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, bool)
    ends = np.cumsum(counts)
    remaining = np.repeat(ends, counts) - np.arange(ends[-1])
    first = np.zeros(len(remaining), bool)
    first[ends - counts] = True
    return np.concatenate(hashes), remaining, first


def _once(runs: Hashes, origins: NDArray[np.uint32]) -> tuple[Hashes, NDArray[np.uint32]]:
    """The runs in order, each once, with the first file that has it."""
    runs, first = np.unique(runs, return_index=True)
    return runs, origins[first]


def _among(hashes: Hashes, ordered: Hashes) -> NDArray[np.bool_]:
    places = np.searchsorted(ordered, hashes)
    places[places == len(ordered)] = 0
    return ordered[places] == hashes if len(ordered) else np.zeros(len(hashes), bool)
