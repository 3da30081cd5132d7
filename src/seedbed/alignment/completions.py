"""Completions after their prompts, as rows of tokens that a model reads at once.

Shape suffixes: B rows, T positions in a row, C completions, N their tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seedbed.data.batches.batch import IGNORE, TokenBatch
from seedbed.data.batches.packing import pack
from seedbed.tokenizers.chat import Encoded

NOBODY = -1
"""In place of the number of a completion: of prompts and padding."""


@dataclass(frozen=True)
class CompletionBatch:
    """Prompts with completions: each in a row of its own, or several packed into a row, where none sees another."""

    rows: TokenBatch
    """The targets are the tokens of completions, the one that ends each among them."""
    completion_BT: Tensor
    """int64, at each target the number of the completion it belongs to, NOBODY elsewhere."""
    count: int
    """C."""

    @property
    def tokens(self) -> int:
        """Tokens that go through the model."""
        return self.rows.tokens

    @property
    def owner_N(self) -> Tensor:
        """The completion that each target belongs to."""
        return self.completion_BT[self.completion_BT != NOBODY]

    @property
    def lengths_C(self) -> Tensor:
        """Tokens of each completion."""
        return torch.bincount(self.owner_N, minlength=self.count)

    def to(self, device: torch.device | str) -> CompletionBatch:
        """The same batch on another device."""
        return CompletionBatch(self.rows.to(device), self.completion_BT.to(device, non_blocking=True), self.count)


def collate(encoded: Sequence[Encoded], pad_id: int, length: int | None = None) -> CompletionBatch:
    """Completions 0, 1, … of (ids, which of them are the completion's), padded on the right to the longest row.

    With `length` they are packed into rows of at most so many tokens; each must fit into one.
    """
    sizes = np.array([len(ids) for ids, _ in encoded], dtype=np.int64)
    dealt = [[number] for number in range(len(encoded))] if length is None else pack(sizes, length, seed=0)
    shape = (len(dealt), int(max(sizes[row].sum() for row in dealt)))
    tokens_BT, targets_BT = np.full(shape, pad_id, dtype=np.int64), np.full(shape, IGNORE, dtype=np.int64)
    completion_BT, positions_BT = np.full(shape, NOBODY, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    segments_BT = np.full(shape, -1, dtype=np.int32)
    for b, row in enumerate(dealt):
        at = 0
        for segment, number in enumerate(row):
            ids, mask = encoded[number]
            here, before = slice(at, at + len(ids)), slice(at, at + len(ids) - 1)
            tokens_BT[b, here], positions_BT[b, here], segments_BT[b, here] = ids, np.arange(len(ids)), segment
            # What a position predicts is the token after it; nothing follows the last.
            targets_BT[b, before] = np.where(mask[1:], np.asarray(ids[1:], dtype=np.int64), IGNORE)
            completion_BT[b, before] = np.where(mask[1:], number, NOBODY)
            at += len(ids)
    tokens, targets, completion = map(torch.from_numpy, (tokens_BT, targets_BT, completion_BT))
    if length is None:  # padding on the right is seen by nobody as it is, and a plain causal mask is the fastest
        return CompletionBatch(TokenBatch(tokens, targets), completion, len(encoded))
    packed = TokenBatch(tokens, targets, torch.from_numpy(segments_BT), torch.from_numpy(positions_BT))
    return CompletionBatch(packed, completion, len(encoded))
