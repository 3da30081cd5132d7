"""What a training step eats, and who brings it.

Shape suffixes: B rows of the batch, T positions in a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

IGNORE = -100
"""Target of a position that carries no loss; the value PyTorch's cross-entropy ignores by default."""


class Batch(Protocol):
    """All that the training loop knows of what it feeds to an objective."""

    @property
    def tokens(self) -> int:
        """Tokens that go through the model, with and without a target."""

    def to(self, device: torch.device | str) -> Self:
        """The same batch on another device."""


@dataclass(frozen=True)
class TokenBatch:
    """Rows of tokens with the token each position should predict.

    Packed rows hold several documents that must not see each other: `segments_BT` numbers the documents of a row from 0
    (−1 on padding) and `positions_BT` starts again at 0 with each. Both are None when every row is one document.
    """

    tokens_BT: Tensor
    """int64 inputs."""
    targets_BT: Tensor
    """int64, the token after each input; IGNORE where there is no loss."""
    segments_BT: Tensor | None = None
    """int32 document number inside the row, −1 on padding."""
    positions_BT: Tensor | None = None
    """int64 position inside the document."""
    prefix_B: Tensor | None = None
    """int64, how many first positions of each row are read by all of it."""
    own_B: Tensor | None = None
    """bool, rows whose targets the learner itself said: no text stands behind them. None where no row is such a one."""

    @property
    def where(self) -> dict[str, Tensor | None]:
        """Who sees whom and from where: what a model is told beside the tokens."""
        return {"segments_BT": self.segments_BT, "positions_BT": self.positions_BT, "prefix_B": self.prefix_B}

    @property
    def units(self) -> int:
        """Target tokens: what the summed loss of an optimizer step is divided by."""
        return int((self.targets_BT != IGNORE).sum())

    @property
    def tokens(self) -> int:
        """Tokens that go through the model, with and without a target."""
        return self.tokens_BT.numel()

    def to(self, device: torch.device | str) -> TokenBatch:
        """The same batch on another device; from pinned memory the copy does not wait."""
        moved = [
            None if tensor is None else tensor.to(device, non_blocking=True)
            for tensor in (self.segments_BT, self.positions_BT, self.prefix_B, self.own_B)
        ]
        return TokenBatch(
            self.tokens_BT.to(device, non_blocking=True), self.targets_BT.to(device, non_blocking=True), *moved
        )


B_co = TypeVar("B_co", bound=Batch, covariant=True)


class BatchSource(Protocol[B_co]):
    """Where a stage's batches come from.

    A batch is a pure function of the global sample index, so the resume state of the data is one integer, and any
    number of workers, processes or accumulation steps sees the same samples. Sample i belongs to epoch i // samples.
    """

    @property
    def fingerprint(self) -> str:
        """Hash of everything the samples depend on; a run resumes only on the same."""

    @property
    def samples(self) -> int:
        """Samples in one epoch."""

    def batch(self, first: int, count: int) -> B_co:
        """Samples first … first + count − 1, in that order."""
