"""Documents of the token store packed whole into rows, wherever they fit (Ding et al. 2024, arXiv:2404.10830).

A document longer than a row is cut into pieces of the row's length, each beginning with the last token of the one
before, so that every token but a document's first is a target exactly once an epoch and nothing is thrown away. The
pieces are packed best-fit (see `packing`), and isolated from one another as there.

Shape suffixes: B rows, T positions in a row, P pieces in all rows, N tokens in all pieces.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from seedbed.data.batches.batch import IGNORE, TokenBatch
from seedbed.data.batches.order import Epochs
from seedbed.data.batches.packing import pack
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
        self._counts = np.array([len(row) for row in rows], dtype=np.int64)
        """Pieces of each row; `_packed` holds the pieces of all rows, one row after the other, from `_begins` on."""
        self._begins = np.cumsum(self._counts) - self._counts
        self._packed = np.concatenate([np.array(row, dtype=np.int64) for row in rows])
        self._order = Epochs(self.samples, seed)

    @cached_property
    def fingerprint(self) -> str:
        parts = {"best fit": self.store.fingerprint, "length": self.length, "seed": self.seed, "pad": self.pad_id}
        return sha256_json(parts)

    @property
    def samples(self) -> int:
        return len(self._counts)

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
        rows_B, shape = self._order(first, count), (count, self.length)
        counts_B = self._counts[rows_B]
        row_P, segment_P = _runs(counts_B)  # P pieces of all rows, one after the other
        piece_P = self._packed[self._begins[rows_B][row_P] + segment_P]
        start_P, size_P = self._starts[piece_P], self._sizes[piece_P]
        before_P = np.cumsum(size_P) - size_P
        at_P = before_P - before_P[np.cumsum(counts_B) - counts_B][row_P]  # where in its row it begins
        piece_N, position_N = _runs(size_P)  # N tokens of all pieces
        here = (row_P[piece_N], at_P[piece_N] + position_N)
        tokens_BT = np.full(shape, self.pad_id, dtype=np.int64)
        segments_BT = np.full(shape, -1, dtype=np.int32)
        positions_BT = np.zeros(shape, dtype=np.int64)
        tokens_BT[here] = self.store.stretches(start_P, size_P)
        segments_BT[here] = segment_P[piece_N]
        positions_BT[here] = position_N
        targets_BT = np.full(shape, IGNORE, dtype=np.int64)
        goes_on_BT = (segments_BT[:, 1:] == segments_BT[:, :-1]) & (segments_BT[:, 1:] >= 0)
        targets_BT[:, :-1][goes_on_BT] = tokens_BT[:, 1:][goes_on_BT]
        return TokenBatch(*map(torch.from_numpy, (tokens_BT, targets_BT, segments_BT, positions_BT)))


def _runs(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of the elements of runs that long, one after the other: which run each is in, and where in it."""
    number = np.repeat(np.arange(len(counts)), counts)
    return number, np.arange(len(number)) - np.repeat(np.cumsum(counts) - counts, counts)


def _pieces(lengths: NDArray[np.int64], length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the pieces of documents begin in the store, and how long they are; those without a target are left out."""
    step = length - 1
    counts = np.maximum(-(-(lengths - 1) // step), 0)
    document, number = _runs(counts)
    begins = (np.cumsum(lengths) - lengths)[document]
    return begins + number * step, np.minimum(lengths[document] - number * step, length)
