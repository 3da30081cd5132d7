"""Who gives each token of an answer its advantage.

Shape suffixes: B answers, T positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seedbed.alignment.policy.advantages import Baseline, Scale, by_group
from seedbed.alignment.rollouts import Rollout
from seedbed.model.transformer import Transformer


@dataclass(frozen=True)
class GroupCredit:
    """Each token has the advantage of its answer over the others to the same prompt."""

    group: int
    baseline: Baseline
    scale: Scale
    kl: float = 0.0
    """What a nat of divergence from the reference takes from the reward of an answer (k1)."""

    @property
    def needs_old(self) -> bool:
        return self.kl > 0

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return {}

    def begin(self) -> None:
        """There is no state."""

    def assign(self, rollout: Rollout, rewards_B: Tensor, model: Transformer) -> Rollout:
        if self.kl:
            rewards_B = rewards_B - self.kl * (rollout.old_BT - rollout.reference_BT).sum(1)
        advantages_B = by_group(rewards_B, self.group, self.baseline, self.scale)
        return replace(rollout, advantages_BT=torch.where(rollout.said_BT, advantages_B[:, None], 0.0))
