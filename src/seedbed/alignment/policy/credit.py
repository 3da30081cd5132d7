"""Who gives each token of an answer its advantage: the other answers to its prompt, or a critic.

Shape suffixes: B answers, T positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seedbed.alignment.policy.advantages import by_group, generalised, whitened
from seedbed.alignment.policy.choices import Baseline, Scale
from seedbed.alignment.policy.reading import Reading, shared_rows
from seedbed.alignment.policy.rollout import Rollout
from seedbed.alignment.reward_models.ensemble import Ensemble
from seedbed.alignment.rewards.shaping import potential_based, scale
from seedbed.model.transformer import Transformer
from seedbed.training.parallel.world import World


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


def expected(model: Transformer, rollout: Rollout, rows_at_once: int) -> tuple[Tensor, Tensor]:
    """What a score head expects before each token (B, T), and after the last (B)."""
    values_BT = torch.zeros_like(rollout.values_BT)
    after_B = torch.zeros(len(values_BT))
    for index_B in shared_rows(len(values_BT), rows_at_once):
        part = rollout.rows(index_B, fresh=False).to(model.device)
        reading = Reading(model, part.tokens_BT, part.said_BT)
        found_BT = reading.values()
        values_BT[index_B, : found_BT.shape[1]] = found_BT.cpu()
        after_B[index_B] = reading.values_after().cpu()
    return World.here().join(values_BT), World.here().join(after_B)


@dataclass(frozen=True)
class Potential:
    """How good what was said so far is, by the scores of reward models read at every token."""

    models: Ensemble
    weight: float
    rows_at_once: int

    def __call__(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Before each token (B, T), nought where none was said; and after the last (B)."""
        found = [expected(member.model, rollout, self.rows_at_once) for member in self.models.members]
        units = [member.unit for member in self.models.members]
        befores, afters = (
            self.models.together(torch.stack([scale(each, *unit) for each, unit in zip(some, units, strict=True)]))
            for some in zip(*found, strict=True)
        )
        return self.weight * torch.where(rollout.said_BT, befores, 0.0), self.weight * afters


MOST_ERROR = 0.2
"""Of a divergence beside its target, that the coefficient answers to in one rollout."""


class EpisodeCredit:
    """Each token has a reward of its own, and an advantage over what a critic expected (PPO for language models:
    Ziegler et al. 2019, arXiv:1909.08593, §2).

    The reward of a token is what its divergence from the reference costs, −β(log π_old − log π_ref); that of the last
    also what the answer is worth. An episode that the model ended is over, and nothing is expected after it; in one
    that was cut off the critic says what would have come.
    """

    def __init__(
        self,
        *,
        kl: float,
        target: float | None,
        horizon: int,
        discount: float,
        decay: float,
        whiten: bool,
        bootstraps: bool,
        rows_at_once: int,
        potential: Potential | None = None,
    ):
        """Fields as in `PpoConfig`. `target`: None where β stays what it is. `bootstraps`: whether anything is expected
        after an answer that was cut off. `potential`: what hints are made of."""
        self.kl, self.target, self.horizon = kl, target, horizon
        self.discount, self.decay, self.whiten = discount, decay, whiten
        self.bootstraps, self.rows_at_once, self.potential = bootstraps, rows_at_once, potential
        self.coefficient = torch.tensor(kl, dtype=torch.float64)
        """β of the next rollout."""

    needs_old = True

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return {} if self.target is None else {"kl_coefficient": self.coefficient}

    def begin(self) -> None:
        self.coefficient.fill_(self.kl)

    def assign(self, rollout: Rollout, rewards_B: Tensor, model: Transformer) -> Rollout:
        values_BT, after_B = expected(model, rollout, self.rows_at_once)
        said_BT = rollout.said_BT
        rewards_BT = torch.zeros_like(values_BT)
        if self.kl:
            away_BT = rollout.old_BT - rollout.reference_BT
            rewards_BT -= float(self.coefficient) * away_BT
            self._adapt(float(away_BT.sum(1).mean()), len(rewards_B))
        T = said_BT.shape[1]
        last_B = T - 1 - said_BT.flip(1).int().argmax(1)
        ends = torch.arange(len(last_B)), last_B
        rewards_BT[ends] += rewards_B
        over_B = rollout.ended_B | (not self.bootstraps)
        after_B = torch.where(over_B, 0.0, after_B)
        if self.potential is not None:
            potentials_BT, following_B = self.potential(rollout)
            hinted_BT = potential_based(rewards_BT, potentials_BT, self.discount)
            # An episode that goes on is in a state that has a potential, too.
            hinted_BT[ends] += self.discount * torch.where(over_B, 0.0, following_B)
            hints_B = torch.where(said_BT, hinted_BT - rewards_BT, 0.0).sum(1)
            rewards_BT, rollout = hinted_BT, replace(rollout, hints_B=hints_B)
        advantages_BT = generalised(rewards_BT, values_BT, after_B, said_BT, discount=self.discount, decay=self.decay)
        returns_BT = torch.where(said_BT, advantages_BT + values_BT, 0.0)
        if self.whiten:
            advantages_BT = whitened(advantages_BT, said_BT)
        return replace(rollout, values_BT=values_BT, advantages_BT=advantages_BT, returns_BT=returns_BT)

    def _adapt(self, divergence: float, answers: int) -> None:
        """β rises when an answer is further from the reference than its target, and falls when it is nearer (Ziegler et
        al. 2019, §2.2)."""
        if self.target is not None:
            error = min(max(divergence / self.target - 1, -MOST_ERROR), MOST_ERROR)
            self.coefficient.mul_(1 + error * answers / self.horizon)
