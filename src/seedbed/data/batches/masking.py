"""Masked language modelling: some tokens are hidden, and they alone are to be predicted, from both sides.

Devlin et al. 2019 (BERT), arXiv:1810.04805, §3.1: of the chosen tokens 80% become <mask>, 10% another token at random,
and 10% stay as they are. A target stands at its own position, not one before as in next-token prediction.

Shape suffixes: B rows, T positions in a row.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from seedbed.data.batches.batch import IGNORE, BatchSource, TokenBatch
from seedbed.data.batches.order import chances
from seedbed.errors import ConfigError
from seedbed.runs import sha256_json

if TYPE_CHECKING:
    from seedbed.tokenizers.tokenizer import Tokenizer

HIDDEN, RANDOM = 0.8, 0.1


class Masking:
    """A batch source over another. Which tokens are chosen depends on seed and sample; special tokens never are."""

    def __init__(self, source: BatchSource[TokenBatch], tokenizer: Tokenizer, rate: float, seed: int):
        """ConfigError when the tokenizer has no <mask>."""
        mask = tokenizer.special_ids.get("<mask>")
        if mask is None:
            raise ConfigError(
                "masking needs the special token <mask> in the tokenizer",
                "Every one that `seedbed tokenizer` makes has it; one of another tool may get it by --extra_tokens.",
            )
        self.source, self.rate, self.seed, self._mask = source, rate, seed, mask
        self._special = np.array(sorted(tokenizer.special_ids.values()))
        self._plain = np.setdiff1d(np.arange(tokenizer.vocab_size), self._special)

    @cached_property
    def fingerprint(self) -> str:
        return sha256_json({"masking": [self.rate, self.seed, self._mask], "of": self.source.fingerprint})

    @property
    def samples(self) -> int:
        return self.source.samples

    def batch(self, first: int, count: int) -> TokenBatch:
        """Samples first … first + count − 1; each row hides `rate` of its tokens, rounded, at least one."""
        batch = self.source.batch(first, count)
        rows_BT = batch.tokens_BT.numpy()
        rows = map(self._row, rows_BT, chances(self.seed, first, count, len(rows_BT)))
        tokens_BT, targets_BT = (torch.from_numpy(np.stack(part)) for part in zip(*rows, strict=True))
        return TokenBatch(tokens_BT, targets_BT, batch.segments_BT, batch.positions_BT)

    def _row(
        self, row_T: NDArray[np.int64], chance: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        plain = np.flatnonzero(~np.isin(row_T, self._special))
        chosen = chance.permutation(plain)[: max(1, round(self.rate * len(plain)))]
        tokens_T, targets_T = row_T.copy(), np.full_like(row_T, IGNORE)
        targets_T[chosen] = row_T[chosen]
        fate = chance.random(len(chosen))
        tokens_T[chosen[fate < HIDDEN]] = self._mask
        other = chosen[(fate >= HIDDEN) & (fate < HIDDEN + RANDOM)]
        tokens_T[other] = chance.choice(self._plain, len(other))
        return tokens_T, targets_T
