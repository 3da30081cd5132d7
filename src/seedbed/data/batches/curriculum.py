"""Rows that are shorter at first: the sequence-length curriculum (Li et al. 2021, arXiv:2108.06084).

A row of T positions is cut into T / L rows of L. So each step has the same tokens and targets whatever the length, and
the order of the data does not change with it: only how far back a position can look. Positions begin again in each row.

Shape suffixes: B rows, T positions in a row.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property

import torch

from seedbed.data.batches.batch import BatchSource, TokenBatch
from seedbed.errors import ConfigError
from seedbed.runs import sha256_json


class LengthCurriculum:
    """A batch source over another, whose rows it cuts. One sample is still one row of that source."""

    def __init__(self, source: BatchSource[TokenBatch], length: int, phases: Sequence[tuple[int, int]]):
        """`length` is that of the source's rows; `phases` are (first sample, length), each length a divisor of it.

        ConfigError when they are not, or do not begin at 0 and follow one another.
        """
        firsts = [first for first, _ in phases]
        if not phases or firsts[0] != 0 or sorted(set(firsts)) != firsts:
            raise ConfigError(f"the phases of a curriculum must begin at 0 and follow one another, got {firsts}")
        for _, short in phases:
            if short < 1 or length % short:
                raise ConfigError(f"a length of the curriculum must divide the rows' {length}, got {short}")
        self.source, self.phases = source, list(phases)

    @cached_property
    def fingerprint(self) -> str:
        return sha256_json({"lengths": self.phases, "of": self.source.fingerprint})

    @property
    def samples(self) -> int:
        return self.source.samples

    def batch(self, first: int, count: int) -> TokenBatch:
        """Samples first … first + count − 1, cut. ValueError when the length changes among them."""
        number = bisect_right(self.phases, first, key=lambda phase: phase[0]) - 1
        if number + 1 < len(self.phases) and first + count > self.phases[number + 1][0]:
            raise ValueError(f"the length changes at sample {self.phases[number + 1][0]}, inside one batch")
        batch, length = self.source.batch(first, count), self.phases[number][1]

        tokens_BT, targets_BT = batch.tokens_BT.reshape(-1, length), batch.targets_BT.reshape(-1, length)
        if batch.segments_BT is None or batch.positions_BT is None:
            return TokenBatch(tokens_BT, targets_BT)
        # Only in the part of a document that a cut runs through do positions exceed the place in the row.
        positions_BT = torch.minimum(batch.positions_BT.reshape(-1, length), torch.arange(length))
        return TokenBatch(tokens_BT, targets_BT, batch.segments_BT.reshape(-1, length), positions_BT)
