"""The order of the data: a keyed permutation that is computed, never stored.

A generalised Feistel network (Black and Rogaway 2002, "Ciphers with arbitrary finite domains", §5) writes an index as a
pair from [0, a) × [0, b) with a·b barely above n, and adds to one half, modulo its range, a keyed hash of the other, in
turn. Walking on while the value is n or more (their §4) makes it a permutation of [0, n) itself. So the place of sample
i in epoch e is a pure function of (key, i): nothing to keep, nothing to restore, the same for any number of workers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from seedbed.data.splitmix import mix

ROUNDS = 6
"""Four rounds are provably pseudo-random for ideal round functions; two more make up for a cheap one."""


class Permutation:
    """A bijection of [0, n), chosen by `key`; called with an index or an array of them."""

    def __init__(self, n: int, key: str | int):
        if not 0 < n < 2**62:
            raise ValueError(f"a permutation needs 0 < n < 2^62 elements, got {n}")
        self.n = n
        columns = math.isqrt(n - 1) + 1
        self._columns, self._rows = np.uint64(columns), np.uint64(-(-n // columns))
        # The kind of key is part of it: the number 1 and the text "1" are two keys.
        seed = hashlib.sha256(f"{type(key).__name__}:{key}".encode()).digest()
        seed += hashlib.sha256(seed).digest()
        self._keys = np.frombuffer(seed, dtype="<u8")[:ROUNDS].astype(np.uint64)

    def __call__(self, index: int | NDArray[np.integer]) -> int | NDArray[np.int64]:
        """The place of `index`, or of each of an array of indices; IndexError outside [0, n)."""
        indices = np.atleast_1d(np.asarray(index))
        if indices.dtype.kind not in "iu":
            raise TypeError(f"indices must be whole numbers, got {indices.dtype}")
        if indices.size and (indices.min() < 0 or indices.max() >= self.n):
            raise IndexError(f"indices must be in [0, {self.n}), got {indices.min()} to {indices.max()}")
        places = self._permute(indices.astype(np.uint64))
        return int(places[0]) if np.ndim(index) == 0 else places.astype(np.int64)

    def _permute(self, x: NDArray[np.uint64]) -> NDArray[np.uint64]:
        x = self._encrypt(x)
        outside = np.flatnonzero(x >= self.n)
        while outside.size:  # rare: the range exceeds n by less than its square root
            x[outside] = self._encrypt(x[outside])
            outside = outside[x[outside] >= self.n]
        return x

    def _encrypt(self, x: NDArray[np.uint64]) -> NDArray[np.uint64]:
        row, column = np.divmod(x, self._columns)
        for even, odd in zip(self._keys[::2], self._keys[1::2], strict=True):
            row = (row + mix(column + even) % self._rows) % self._rows
            column = (column + mix(row + odd) % self._columns) % self._columns
        return row * self._columns + column


class Epochs:
    """The endless sequence of epochs over n samples, each epoch in another order, chosen by `seed` and its number."""

    def __init__(self, n: int, seed: int):
        self.n = n
        self._order = lru_cache(maxsize=4)(lambda epoch: Permutation(n, f"{seed}:{epoch}"))

    def __call__(self, first: int, count: int) -> NDArray[np.int64]:
        """Which of [0, n) the samples first … first + count − 1 are."""
        if first < 0 or count < 1:
            raise IndexError(f"samples are counted from 0 and taken one or more at a time, got {count} from {first}")
        epochs, places = np.divmod(np.arange(first, first + count, dtype=np.int64), self.n)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            inside = epochs == epoch
            places[inside] = self._order(epoch)(places[inside])
        return places


def chances(seed: int, first: int, count: int, rows: int) -> Iterator[np.random.Generator]:
    """One for each row of the samples first … first + count − 1, `rows` in all: a function of seed and sample, and of
    the row's place among those that its sample was cut into."""
    pieces = rows // count
    for row in range(rows):
        sample, piece = divmod(row, pieces)
        yield np.random.Generator(np.random.Philox(key=[seed, first + sample], counter=[0, 0, 0, piece]))
