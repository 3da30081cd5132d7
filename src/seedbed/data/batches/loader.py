"""Windows of the token store as training batches, in an order that is a pure function of seed and sample index.

Shape suffixes: B rows, T positions in a row.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from seedbed.data.batches.batch import IGNORE, TokenBatch
from seedbed.data.batches.order import Epochs
from seedbed.data.tokens import TokenStore
from seedbed.errors import ConfigError, DataError
from seedbed.runs import sha256_json


class WindowSource:
    """The stretches of `length` tokens that a store falls into, each epoch in another order; a BatchSource.

    A window is length + 1 tokens and the next begins `stride` after it; by default `length`, so that every token but
    the first is a target exactly once an epoch; the last stride − 1 tokens at most are left out. Windows run across
    documents, which <s> and </s> part: the nanoGPT way. With `isolate` no position sees another document than its own,
    and the token after a document's last is no target. Sample i is window P(i mod samples) of epoch i // samples; P is
    keyed by seed and epoch.
    """

    def __init__(self, store: TokenStore, length: int, seed: int, *, stride: int | None = None, isolate: bool = False):
        """DataError when the store holds less than one window, ConfigError when `length` or `stride` is none."""
        if length < 1:
            raise ConfigError(f"length must be at least 1, got {length}")
        if stride is not None and stride < 1:
            raise ConfigError(f"stride must be at least 1, got {stride}")
        if store.n_tokens < length + 1:
            raise DataError(
                f"{store.path} holds {store.n_tokens:,} tokens, fewer than one window of {length} + 1",
                "Bring more text, choose a shorter context, or a larger --validation_fraction if this is validation.",
            )
        self.store, self.length, self.seed, self.stride, self.isolate = store, length, seed, stride or length, isolate
        self.windows = Epochs(self.samples, seed)
        """Called with first and count: which windows of the store the samples first … first + count − 1 are."""

    @cached_property
    def fingerprint(self) -> str:
        parts = {"windows": self.store.fingerprint, "length": self.length, "seed": self.seed}
        return sha256_json({**parts, "stride": self.stride, "isolate": self.isolate})

    @property
    def samples(self) -> int:
        return (self.store.n_tokens - 1 - self.length) // self.stride + 1

    def batch(self, first: int, count: int) -> TokenBatch:
        """Samples first … first + count − 1; the targets are one token further. Changed bytes: CorruptionError."""
        starts_B = self.windows(first, count) * self.stride
        window_BT = self.store.windows(starts_B, self.length + 1).astype(np.int64)
        tokens_BT, targets_BT = window_BT[:, :-1].copy(), window_BT[:, 1:].copy()
        if not self.isolate:
            return TokenBatch(torch.from_numpy(tokens_BT), torch.from_numpy(targets_BT))
        segments_BT, positions_BT = self.store.segments(starts_B, self.length + 1)
        targets_BT[segments_BT[:, 1:] != segments_BT[:, :-1]] = IGNORE
        isolated = (segments_BT[:, :-1].copy(), positions_BT[:, :-1].copy())
        return TokenBatch(*map(torch.from_numpy, (tokens_BT, targets_BT, *isolated)))
