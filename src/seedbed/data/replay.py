"""Rows of plain text among the rows of fine-tuning, so that what was learned before is not forgotten.

Learning something new overwrites what no longer comes up; going through a little of the old data again keeps it
(rehearsal: Robins 1995; for language models Ibrahim et al. 2024, arXiv:2403.08763, §4).

Shape suffixes: B rows, T positions in a row.
"""

from __future__ import annotations

import math

import torch

from seedbed.data.batch import BatchSource, TokenBatch
from seedbed.runs import sha256_json


class ReplaySource:
    """A batch source over two: the rows of `new`, and spread evenly among them a share of rows of `old`.

    Among the samples 0 … n − 1 are ⌊n · share⌋ rows of `old`, each source in its own order. So a sample is a pure
    function of its index here as it is there. An epoch is one of `new`.
    """

    def __init__(self, new: BatchSource[TokenBatch], old: BatchSource[TokenBatch], share: float):
        """Rows of both are equally long; 0 ≤ share < 1."""
        self.new, self.old, self.share = new, old, share

    @property
    def fingerprint(self) -> str:
        return sha256_json({"new": self.new.fingerprint, "old": self.old.fingerprint, "share": self.share})

    @property
    def samples(self) -> int:
        return math.ceil(self.new.samples / (1 - self.share))

    def batch(self, first: int, count: int) -> TokenBatch:
        """Samples first … first + count − 1, in that order."""
        # Rows of `old` before each sample, and before the one after the last.
        before = [math.floor(sample * self.share) for sample in range(first, first + count + 1)]
        is_old_B = torch.tensor(before).diff() > 0
        n_old = int(is_old_B.sum())
        parts = []
        if n_old < count:
            parts.append(_isolated(self.new.batch(first - before[0], count - n_old)))
        if n_old:
            parts.append(_isolated(self.old.batch(before[0], n_old)))
        order_B = torch.argsort(is_old_B.int(), stable=True).argsort()
        names = ("tokens_BT", "targets_BT", "segments_BT", "positions_BT")
        return TokenBatch(*(torch.cat([getattr(part, name) for part in parts])[order_B] for name in names))


def _isolated(batch: TokenBatch) -> TokenBatch:
    """With segments and positions, also where every row is one document."""
    if batch.segments_BT is not None:
        return batch
    B, T = batch.tokens_BT.shape
    positions_BT = torch.arange(T).expand(B, T)
    return TokenBatch(batch.tokens_BT, batch.targets_BT, torch.zeros(B, T, dtype=torch.int32), positions_BT)
