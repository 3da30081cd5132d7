"""Prefix language modelling: the beginning of a row is given and read both ways, the rest is to be predicted.

Raffel et al. 2020 (T5), arXiv:1910.10683, §3.2.1 and §3.2.3: where the prefix ends is drawn anew for each row, each
place as likely as any other. A row packed with several documents has one prefix too: documents that lie wholly in it
are only read, the one in which it ends is read up to there, those behind are predicted from their beginning.

Shape suffixes: B rows, T positions in a row.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from seedbed.data.batches.batch import IGNORE, BatchSource, TokenBatch
from seedbed.data.batches.order import chances
from seedbed.runs import sha256_json


class Prefixes:
    """A batch source over another of next-token rows. Where a prefix ends depends on seed and sample."""

    def __init__(self, source: BatchSource[TokenBatch], seed: int):
        self.source, self.seed = source, seed

    @cached_property
    def fingerprint(self) -> str:
        return sha256_json({"prefixes": self.seed, "of": self.source.fingerprint})

    @property
    def samples(self) -> int:
        return self.source.samples

    def batch(self, first: int, count: int) -> TokenBatch:
        """Samples first … first + count − 1; a prefix holds one token at least and leaves one target at least."""
        batch = self.source.batch(first, count)
        targets_BT = batch.targets_BT.numpy()
        rows, length = targets_BT.shape
        counted_BT = targets_BT != IGNORE
        last_B = np.where(counted_BT.any(1), length - 1 - np.argmax(counted_BT[:, ::-1], axis=1), 0)
        drawn = zip(chances(self.seed, first, count, rows), last_B.tolist(), strict=True)
        prefix_B = np.array([chance.integers(1, last + 2) for chance, last in drawn])
        # The last token of a prefix sees no further than the prefix goes: it is the first that may predict.
        inside_BT = np.arange(length) < prefix_B[:, None] - 1
        targets_BT = np.where(inside_BT, IGNORE, targets_BT)
        return replace(batch, targets_BT=torch.from_numpy(targets_BT), prefix_B=torch.from_numpy(prefix_B))
