"""Batches of answers with what is told of them.

Shape suffixes: S rows of the data in a batch, K answers of a row, C = K·S completions: first the first answer of every
row, then the second of every row, and so on; L numbers told of them, S unless a row tells more than one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from seedbed.alignment.completions import CompletionBatch, collate
from seedbed.data.batches.order import Epochs
from seedbed.tokenizers.chat import Encoded


@dataclass(frozen=True)
class AnswerRow:
    """Completions, each with its prompt before it, and what the data tells of them in numbers."""

    completions: tuple[Encoded, ...]
    told: tuple[float, ...]


@dataclass(frozen=True)
class AnswerBatch:
    """Rows of answers."""

    completions: CompletionBatch
    told_L: Tensor
    """fp32, of one row after the other; what it means is the objective's affair."""
    reference_SK: Tensor | None = None
    """fp32, log p of each answer by the model as it began, where the objective compares with it."""

    @property
    def tokens(self) -> int:
        """Tokens that go through the model."""
        return self.completions.tokens

    def to(self, device: torch.device | str) -> AnswerBatch:
        """The same batch on another device."""
        reference_SK = None if self.reference_SK is None else self.reference_SK.to(device, non_blocking=True)
        return AnswerBatch(self.completions.to(device), self.told_L.to(device, non_blocking=True), reference_SK)


class AnswerSource:
    """A batch source over rows of answers, each epoch in another order. One sample is one row, or a group of them."""

    def __init__(
        self, rows: Sequence[AnswerRow], *, seed: int, pad_id: int, length: int, packing: bool = False, group: int = 1
    ):
        """`length`: tokens of a row of the batch, where `packing` puts several completions into it."""
        self.rows, self.seed, self.pad_id, self.group = list(rows), seed, pad_id, group
        self.length = length if packing else None
        self.reference_NK: Tensor | None = None
        """log p of every answer by the reference, once it is known."""
        self._order = Epochs(len(self.rows), seed)

    @property
    def samples(self) -> int:
        """Groups in an epoch; where they do not come out even, the last one goes on into the next epoch."""
        return -(-len(self.rows) // self.group)

    @cached_property
    def content(self) -> str:
        """SHA-256 of the rows in their order."""
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(f"{row.told!r} {len(row.completions)} ".encode())
            for ids, mask in row.completions:
                digest.update(len(ids).to_bytes(8, "little"))
                digest.update(ids.astype("<u4").tobytes())
                digest.update(mask.astype("u1").tobytes())
        return digest.hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the rows and all that places them."""
        settings = f"answers {self.content} {self.seed} {self.pad_id} {self.length} {self.group}"
        return hashlib.sha256(settings.encode()).hexdigest()

    def batch(self, first: int, count: int) -> AnswerBatch:
        """Samples first … first + count − 1."""
        return self.chosen(self._order(first * self.group, count * self.group).tolist())

    def chosen(self, numbers: Sequence[int]) -> AnswerBatch:
        """The rows of these numbers, whatever the order of an epoch."""
        rows = [self.rows[number] for number in numbers]
        encoded = [row.completions[k] for k in range(len(rows[0].completions)) for row in rows]
        told_L = torch.tensor([number for row in rows for number in row.told], dtype=torch.float32)
        reference_SK = None if self.reference_NK is None else self.reference_NK[list(numbers)]
        return AnswerBatch(collate(encoded, self.pad_id, self.length), told_L, reference_SK)
