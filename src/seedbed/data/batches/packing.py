"""Conversations packed into rows, so that little of a batch is padding.

Rows are made once: documents are dealt into groups by a keyed permutation, and inside a group each goes, longest first,
into the fullest row that still has room (best-fit decreasing; Johnson et al. 1974 bound its waste). Each epoch then
permutes the rows. So the number of rows is constant and a sample is a pure function of its index. Documents keep their
neighbours for the whole run, which does not matter: segments and positions isolate them.

Shape suffixes: B rows, T positions in a row.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from seedbed.data.batches.batch import IGNORE, TokenBatch
from seedbed.data.batches.order import Permutation
from seedbed.errors import ConfigError, DataError
from seedbed.tokenizers.chat import Encoded

STRETCHES = 10
"""Of the first epoch of a curriculum."""
GROUP = 4096
"""Documents packed together: enough that almost no room is left, few enough that a row holds long and short ones."""


class PackedSource:
    """A batch source over packed rows of `length` tokens. One sample is one row."""

    def __init__(
        self,
        encoded: Sequence[Encoded],
        length: int,
        seed: int,
        pad_id: int,
        names: Sequence[str] | None = None,
        ranks: Sequence[float] | None = None,
    ):
        """`names` say what each document is called in messages to people; else it is counted from 1. `ranks`: in the
        first epoch, documents of lower rank come first (curriculum: Bengio et al. 2009), a tenth after the other; left
        out, they come by chance as in all later ones.

        Raises DataError, naming the document, when one is longer than a row, its mask is of another length, or nothing
        of it is to be learned; and when there is none.
        """
        if length < 2:
            raise ConfigError(f"length must be at least 2, got {length}")
        if not encoded:
            raise DataError("there is no conversation to learn from")
        for i, (ids, mask) in enumerate(encoded):
            name = names[i] if names is not None else f"conversation {i + 1:,}"
            _check(name, ids, mask, length)
        self.length = length
        self.seed = seed
        self.pad_id = pad_id
        self._ids = np.concatenate([np.asarray(ids, dtype=np.uint32) for ids, _ in encoded])
        self._mask = np.concatenate([np.asarray(mask, dtype=np.bool_) for _, mask in encoded])
        self._starts = np.concatenate([[0], np.cumsum([len(ids) for ids, _ in encoded])])
        order = np.arange(len(encoded)) if ranks is None else np.argsort(ranks, kind="stable")
        self._stretches = [0]
        """Where rows of each tenth begin, and at last where they end."""
        self._rows: list[list[int]] = []
        for tenth in np.array_split(order, 1 if ranks is None else STRETCHES):
            if len(tenth):
                lengths = np.diff(self._starts)[tenth]
                self._rows += [tenth[np.array(row)].tolist() for row in pack(lengths, length, seed)]
                self._stretches.append(len(self._rows))
        self._ranked = None if ranks is None else order
        self._epoch: tuple[int, Permutation] | None = None

    @property
    def samples(self) -> int:
        """Rows, which each epoch sees once."""
        return len(self._rows)

    @property
    def documents(self) -> int:
        """Conversations in all rows."""
        return len(self._starts) - 1

    @property
    def padding(self) -> float:
        """The part of all positions that is padding."""
        return 1 - len(self._ids) / (len(self._rows) * self.length)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the documents, their masks and all that places them."""
        digest = hashlib.sha256(f"packed {self.length} {self.seed} {self.pad_id} {self.documents}".encode())
        for array, kind in ((self._starts, "<i8"), (self._ids, "<u4"), (self._mask, "u1"), (self._ranked, "<i8")):
            if array is not None:
                digest.update(array.astype(kind).tobytes())
        return digest.hexdigest()

    def batch(self, first: int, count: int) -> TokenBatch:
        """Rows first … first + count − 1 of the endless sequence of epochs."""
        rows = [[self._document(number) for number in self._row(first + b)] for b in range(count)]
        return lay_out(rows, self.length, self.pad_id)

    def _document(self, number: int) -> Encoded:
        here = slice(self._starts[number], self._starts[number + 1])
        return self._ids[here], self._mask[here]

    def _row(self, sample: int) -> list[int]:
        """The documents of a sample."""
        epoch, index = divmod(sample, self.samples)
        if epoch == 0 and self._ranked is not None:
            stretch = bisect_right(self._stretches, index) - 1
            begin, end = self._stretches[stretch : stretch + 2]
            place = Permutation(end - begin, f"{self.seed}/stretch {stretch}")(index - begin)
            return self._rows[begin + int(place)]
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = (epoch, Permutation(self.samples, f"{self.seed}/epoch {epoch}"))
        return self._rows[int(self._epoch[1](index))]


def _check(name: str, ids: NDArray[np.uint32], mask: NDArray[np.bool_], length: int) -> None:
    if len(ids) != len(mask):
        raise DataError(f"{name} has {len(ids):,} tokens but a mask of {len(mask):,}")
    if len(ids) > length:
        raise DataError(
            f"{name} has {len(ids):,} tokens, but a row holds {length:,}",
            f"Set the length to at least {len(ids)}, if the model has so many positions, or shorten it; "
            "--overlong drop leaves such rows out, --overlong truncate cuts them.",
        )
    if not np.any(mask[1:]):  # the first token is nobody's target
        raise DataError(f"{name} has no token to learn: its mask is empty")


def lay_out(rows: Sequence[Sequence[Encoded]], length: int, pad_id: int) -> TokenBatch:
    """Rows of `length` positions, each of documents side by side, where none sees another."""
    shape = (len(rows), length)
    tokens_BT = np.full(shape, pad_id, dtype=np.int64)
    targets_BT = np.full(shape, IGNORE, dtype=np.int64)
    segments_BT = np.full(shape, -1, dtype=np.int32)
    positions_BT = np.zeros(shape, dtype=np.int64)
    for b, row in enumerate(rows):
        at = 0
        for segment, (ids, mask) in enumerate(row):
            here = slice(at, at + len(ids))
            tokens_BT[b, here] = ids
            # The last token of a document has no target: the next belongs to another one.
            targets_BT[b, at : at + len(ids) - 1] = np.where(mask[1:], ids[1:].astype(np.int64), IGNORE)
            segments_BT[b, here] = segment
            positions_BT[b, here] = np.arange(len(ids))
            at += len(ids)
    return TokenBatch(*map(torch.from_numpy, (tokens_BT, targets_BT, segments_BT, positions_BT)))


def pack(lengths: NDArray[np.int64], length: int, seed: int) -> list[list[int]]:
    """Rows of documents whose lengths add up to at most `length` each."""
    order = np.asarray(Permutation(len(lengths), f"{seed}/packing")(np.arange(len(lengths))))
    rows: list[list[int]] = []
    for start in range(0, len(order), GROUP):
        group = order[start : start + GROUP]
        room: list[tuple[int, int]] = []  # (free positions, row), sorted
        for document in group[np.argsort(-lengths[group], kind="stable")].tolist():
            size = int(lengths[document])
            best = bisect_left(room, (size, 0))
            if best == len(room):
                room.append((length, len(rows)))
                rows.append([])
            free, row = room.pop(best)
            rows[row].append(document)
            if free > size:
                insort(room, (free - size, row))
    return rows
