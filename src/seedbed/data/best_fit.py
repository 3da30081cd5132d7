"""Documents of the token store packed whole into rows, wherever they fit (Ding et al. 2024, arXiv:2404.10830).

A document longer than a row is cut into pieces of the row's length, each beginning with the last token of the one
before, so that every token but a document's first is a target exactly once an epoch and nothing is thrown away. The
pieces are packed best-fit (see `packing`), and isolated from one another as there.

Shape suffixes: B rows, T positions in a row.
"""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from seedbed.data.batch import IGNORE, TokenBatch
from seedbed.data.order import Permutation
from seedbed.data.packing import pack
from seedbed.data.tokens import TokenStore
from seedbed.errors import ConfigError, DataError
from seedbed.runs import sha256_json


class BestFitSource:
    """A batch source over packed rows of `length` tokens of a store. One sample is one row."""

    def __init__(self, store: TokenStore, length: int, seed: int, pad_id: int):
        """ConfigError when `length` is below 2; DataError when no document has two tokens."""
        if length < 2:
            raise ConfigError(f"length must be at least 2, got {length}")
        self.store, self.length, self.seed, self.pad_id = store, length, seed, pad_id
        self._starts, self._sizes = _pieces(store.lengths, length)
        if not len(self._starts):
            raise DataError(f"{store.path} holds no document of two tokens or more")
        rows = pack(self._sizes, length, seed)
        self._ends = np.cumsum([len(row) for row in rows])
        self._packed = np.concatenate([np.array(row, dtype=np.int64) for row in rows])
        self._order = lru_cache(maxsize=4)(lambda epoch: Permutation(self.samples, f"{seed}:{epoch}"))

    @cached_property
    def fingerprint(self) -> str:
        parts = {"best fit": self.store.fingerprint, "length": self.length, "seed": self.seed, "pad": self.pad_id}
        return sha256_json(parts)

    @property
    def samples(self) -> int:
        return len(self._ends)

    @cached_property
    def report(self) -> dict[str, float]:
        """Shares: `padding` of all positions; `cropped`, the tokens thrown away to fit (none here; nanochat's packing
        loses a third); `cut`, the documents that are longer than a row and so lie in several."""
        lengths = self.store.lengths
        return {
            "padding": 1 - float(self._sizes.sum()) / (self.samples * self.length),
            "cropped": 0.0,
            "cut": float((lengths > self.length).mean()),
        }

    def batch(self, first: int, count: int) -> TokenBatch:
        """Rows first … first + count − 1 of the endless sequence of epochs."""
        shape = (count, self.length)
        tokens_BT = np.full(shape, self.pad_id, dtype=np.int64)
        targets_BT = np.full(shape, IGNORE, dtype=np.int64)
        segments_BT = np.full(shape, -1, dtype=np.int32)
        positions_BT = np.zeros(shape, dtype=np.int64)
        for b in range(count):
            epoch, index = divmod(first + b, self.samples)
            row, at = int(self._order(epoch)(index)), 0
            for segment, piece in enumerate(self._packed[self._ends[row - 1] if row else 0 : self._ends[row]].tolist()):
                start, size = int(self._starts[piece]), int(self._sizes[piece])
                here = slice(at, at + size)
                tokens_BT[b, here] = self.store.read(start, start + size)
                targets_BT[b, at : at + size - 1] = tokens_BT[b, at + 1 : at + size]
                segments_BT[b, here] = segment
                positions_BT[b, here] = np.arange(size)
                at += size
        return TokenBatch(*map(torch.from_numpy, (tokens_BT, targets_BT, segments_BT, positions_BT)))


def _pieces(lengths: NDArray[np.int64], length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the pieces of documents begin in the store, and how long they are; those without a target are left out."""
    step = length - 1
    counts = np.maximum(-(-(lengths - 1) // step), 0)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    begins = np.repeat(np.cumsum(lengths) - lengths, counts)
    return begins + number * step, np.minimum(np.repeat(lengths, counts) - number * step, length)
