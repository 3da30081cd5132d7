"""What a step of a policy minimises, and the metrics that the field reads.

Shape suffixes: B answers, T positions, F rewards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seedbed.alignment.policy.asking import Answers
from seedbed.alignment.policy.choices import Estimator, Level, Normaliser
from seedbed.alignment.policy.credit import EpisodeCredit
from seedbed.alignment.policy.losses import clipped, clipped_error, divergence, ratios, units, weigh
from seedbed.alignment.policy.reading import Reading
from seedbed.alignment.policy.rollout import Rollout
from seedbed.model.transformer import Transformer
from seedbed.training.objective import Loss, Objective, Tally

PER_ANSWER = ("reward", "shaped_reward", "length", "ended", "zero_variance_groups", "kl_coefficient")
"""Totals that are means over answers; and those of each reward and each step of shaping."""

PER_TOKEN = (
    *("ratio", "clip_fraction", "entropy", "kl", "approximate_kl", "policy_loss", "value_error"),
    "value_clip_fraction",
)
"""Totals that are means over tokens."""


@dataclass(frozen=True)
class PolicyLoss:
    """How the loss of a policy is made; fields as in `PolicyConfig`."""

    level: Level
    normaliser: Normaliser
    clip_low: float | None
    clip_high: float | None
    kl: float
    estimator: Estimator
    temperature: float
    longest: int
    leaves_out_cut: bool
    has_reference: bool

    def read(self, model: Transformer, batch: Rollout) -> tuple[Reading, Tensor, Tensor]:
        """The pass, the log-probabilities, and those that answered: the very same where the weights still are, so that
        the ratio is 1 and not nearly so."""
        model.eval()  # what dropout leaves out would be another policy than the one that answered
        reading = Reading(model, batch.tokens_BT, batch.said_BT)
        logprobs_BT = reading.logprobs(self.temperature)
        return reading, logprobs_BT, logprobs_BT.detach() if batch.fresh else batch.old_BT

    def __call__(self, logprobs_BT: Tensor, old_BT: Tensor, batch: Rollout) -> tuple[Tensor, int, dict[str, float]]:
        """The summed loss, its units, and what its tokens add up to."""
        said_BT = batch.said_BT
        learned_BT = said_BT & batch.ended_B[:, None] if self.leaves_out_cut else said_BT
        ratios_BT = ratios(logprobs_BT, old_BT, said_BT, self.level)
        loss_BT, held_BT = clipped(ratios_BT, batch.advantages_BT, self.clip_low, self.clip_high)
        if self.kl and self.estimator != "k1":
            own_BT = ratios_BT if self.level == "token" else ratios(logprobs_BT, old_BT, said_BT, "token")
            loss_BT = loss_BT + self.kl * divergence(logprobs_BT, batch.reference_BT, own_BT, self.estimator)
        # Rows without a token count too: what is summed is always divided by all answers.
        weights_BT = weigh(said_BT, self.normaliser, self.longest) * learned_BT
        total = torch.where(learned_BT, loss_BT * weights_BT, 0.0).sum()
        with torch.no_grad():
            moved_BT = torch.where(said_BT, logprobs_BT - old_BT, 0.0)
            totals = {
                "tokens": float(said_BT.sum()),
                "ratio": float(ratios_BT[said_BT].sum()),
                "clip_fraction": float((held_BT & said_BT).sum()),
                # k3 of the old policy from the new one: never negative.
                "approximate_kl": float((moved_BT.exp() - 1 - moved_BT).sum()),
            }
            if self.has_reference:
                away_BT = torch.where(said_BT, batch.reference_BT - logprobs_BT, 0.0)
                totals["kl"] = float((away_BT.exp() - 1 - away_BT).sum())
        return total, units(learned_BT, self.normaliser), totals

    def beside(self, reading: Reading, logprobs_BT: Tensor, batch: Rollout) -> dict[str, float]:
        """What else the pass tells: how sure the policy is and, where it answered itself, how far the engine's
        log-probabilities are from the trainer's."""
        totals = {"entropy": reading.entropy(self.temperature)}
        if batch.fresh:
            with torch.no_grad():
                plain_BT = logprobs_BT.detach() if self.temperature == 1 else reading.logprobs()
                totals["sampler_gap"] = float((plain_BT - batch.sampler_BT).abs().sum())
                totals["gap_tokens"] = float(batch.said_BT.sum())
        return totals


class PolicyObjective(Objective[Rollout | Answers]):
    """The gradient of a policy by what its answers were worth, without a critic: GRPO and its family."""

    def __init__(self, policy: PolicyLoss, names: Sequence[str], weights: Sequence[float], shaping: Sequence[str] = ()):
        """`names` and `weights` of the rewards; the names of steps of shaping."""
        self.policy, self.names, self.weights = policy, tuple(names), torch.tensor(weights)
        self.shaping = tuple(shaping)

    def loss(self, model: Transformer, batch: Rollout | Answers) -> Loss:
        if isinstance(batch, Answers):
            return self.validation(batch)
        reading, logprobs_BT, old_BT = self.policy.read(model, batch)
        total, count, totals = self.policy(logprobs_BT, old_BT, batch)
        totals |= self.policy.beside(reading, logprobs_BT, batch) | self.of_answers(batch)
        return Loss(total, count, totals)

    def validation(self, batch: Answers) -> Loss:
        """The loss of a validation is what its answers were worth, less than nought: the lowest is the best."""
        totals = self._worth(batch.rewards_BF)
        totals |= {"length": float(batch.lengths_B.sum()), "ended": float(batch.ended_B.sum())}
        return Loss(-batch.rewards_B.sum(), len(batch.rewards_B), totals)

    def of_answers(self, batch: Rollout) -> dict[str, float]:
        added = dict(zip(self.shaping, batch.added_BS.sum(0).tolist(), strict=True))
        shaped = {"shaped_reward": float(batch.shaped_B.sum())} if self.shaping else {}
        return self._worth(batch.rewards_BF) | {
            **{f"shaping/{name}": total for name, total in added.items()},
            **shaped,
            "length": float(batch.said_BT.sum()),
            "ended": float(batch.ended_B.sum()),
            "zero_variance_groups": float(batch.alike_B.sum()),
        }

    def _worth(self, rewards_BF: Tensor) -> dict[str, float]:
        rewards_BF = rewards_BF.cpu()
        worth = {f"reward/{name}": float(rewards_BF[:, i].sum()) for i, name in enumerate(self.names)}
        return {"answers": float(len(rewards_BF)), "reward": float((rewards_BF @ self.weights).sum()), **worth}

    def report(self, tally: Tally) -> dict[str, float]:
        """Means: of rewards and lengths over answers, of the rest over tokens."""
        totals = tally.totals
        answers, tokens = totals.get("answers", 0.0) or math.nan, totals.get("tokens", 0.0) or math.nan
        metrics = {"loss": tally.sum / (tally.units or math.nan)}
        for name, value in totals.items():
            if name in PER_ANSWER or name.startswith(("reward/", "shaping/")):
                metrics[name] = value / answers
            elif name == "sampler_gap":
                metrics[name] = value / (totals["gap_tokens"] or math.nan)
            elif name in PER_TOKEN:
                metrics[name] = value / tokens
        return metrics


class EpisodeObjective(PolicyObjective):
    """PPO: the clipped objective of the policy, and the clipped error of its critic, which share their blocks."""

    def __init__(
        self,
        policy: PolicyLoss,
        names: Sequence[str],
        weights: Sequence[float],
        shaping: Sequence[str] = (),
        *,
        credit: EpisodeCredit,
        value_weight: float,
        value_clip: float | None,
    ):
        """What the error of the critic weighs, and how far a value may go from the old one and still learn."""
        super().__init__(policy, names, weights, shaping)
        self.credit, self.value_weight, self.value_clip = credit, value_weight, value_clip

    def loss(self, model: Transformer, batch: Rollout | Answers) -> Loss:
        if isinstance(batch, Answers):
            return self.validation(batch)
        reading, logprobs_BT, old_BT = self.policy.read(model, batch)
        total, count, totals = self.policy(logprobs_BT, old_BT, batch)
        errors_BT, held_BT = clipped_error(reading.values(), batch.values_BT, batch.returns_BT, self.value_clip)
        error = errors_BT[batch.said_BT].sum()
        returns_N, missed_N = batch.returns_BT[batch.said_BT], (batch.returns_BT - batch.values_BT)[batch.said_BT]
        totals |= self.policy.beside(reading, logprobs_BT, batch) | self.of_answers(batch)
        if self.credit.potential is not None:
            totals["shaping/potential"] = float(batch.hints_B.sum())
        totals |= {
            "policy_loss": float(total.detach()),
            "value_error": float(error.detach()),
            "value_clip_fraction": float((held_BT & batch.said_BT).sum()),
            "kl_coefficient": float(self.credit.coefficient) * len(batch.said_BT),
            **{"returns": float(returns_N.sum()), "returns_squared": float(returns_N.square().sum())},
            **{"missed": float(missed_N.sum()), "missed_squared": float(missed_N.square().sum())},
        }
        return Loss(total + self.value_weight * error, count, totals)

    def report(self, tally: Tally) -> dict[str, float]:
        """Also the share of the variance of returns that the critic had explained before it learned from them: 1 when
        it knew all, 0 when a constant would have said as much."""
        metrics, totals = super().report(tally), tally.totals
        if "returns" in totals:
            tokens = totals["tokens"] or math.nan

            def variance(name: str) -> float:
                return totals[f"{name}_squared"] / tokens - (totals[name] / tokens) ** 2

            metrics["explained_variance"] = 1 - variance("missed") / (variance("returns") or math.nan)
        return metrics
