"""A rollout: answers to prompts, what they were worth, and what is to be learned from each of their tokens.

Shape suffixes: B answers, T positions, F rewards, S steps of shaping. A number of a token stands at its own position,
nought where nothing was said.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

PER_TOKEN = ("sampler_BT", "old_BT", "reference_BT", "values_BT", "advantages_BT", "returns_BT")


@dataclass(frozen=True)
class Rollout:
    """Answers, as rows of prompt and answer from the left on."""

    tokens_BT: Tensor
    """int64."""
    said_BT: Tensor
    """bool: tokens of the answer, the one that ends it among them."""
    ended_B: Tensor
    """bool: the model ended it; otherwise it was cut off."""
    rewards_BF: Tensor
    """What each reward says, before weighing; 0 by a rule for an answer that was cut off."""
    added_BS: Tensor
    """What each step of shaping adds to their weighed sum."""
    shaped_B: Tensor
    """What is learned from."""
    hints_B: Tensor
    """What the rewards of tokens have of a potential, added up; nought without one."""
    sampler_BT: Tensor
    """Log-probabilities by the engine, of the model alone: at temperature 1."""
    old_BT: Tensor
    """By the trainer, of the policy that answered; nought where nobody needs them."""
    reference_BT: Tensor
    """By the reference; nought without one."""
    values_BT: Tensor
    """What a critic expected before each token; nought without one."""
    advantages_BT: Tensor
    returns_BT: Tensor
    """What a critic should have expected; nought without one."""
    alike_B: Tensor
    """The share of the rollout's prompts whose answers were all worth the same, in each row."""
    fresh: bool = False
    """Whether the weights are still those that answered."""

    @classmethod
    def empty(cls, rows: int, length: int, rewards: int, steps: int) -> Rollout:
        """`rewards`, and `steps` of shaping: how many there are."""
        made: dict[str, Any] = {name: torch.zeros(rows, length) for name in PER_TOKEN}
        made |= {name: torch.zeros(rows) for name in ("alike_B", "shaped_B", "hints_B")}
        made |= {"rewards_BF": torch.zeros(rows, rewards), "added_BS": torch.zeros(rows, steps)}
        made |= {"tokens_BT": torch.zeros(rows, length, dtype=torch.int64)}
        made |= {"said_BT": torch.zeros(rows, length, dtype=torch.bool)}
        return cls(**made, ended_B=torch.zeros(rows, dtype=torch.bool))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """By name."""
        return {spec.name: getattr(self, spec.name) for spec in fields(self) if spec.name != "fresh"}

    @property
    def tokens(self) -> int:
        return self.tokens_BT.numel()

    def rows(self, index_B: Tensor, *, fresh: bool) -> Rollout:
        """Some of the answers, no longer than the longest of them."""
        chosen = {name: tensor[index_B] for name, tensor in self.tensors.items()}
        # All of a row up to its last word, and one position at least before it.
        length = max(2, int(chosen["said_BT"].any(0).nonzero().max()) + 1)
        cut = {name: tensor[:, :length] if name.endswith("T") else tensor for name, tensor in chosen.items()}
        return Rollout(**cut, fresh=fresh)

    def to(self, device: torch.device | str) -> Rollout:
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors.items()}
        return Rollout(**moved, fresh=self.fresh)
