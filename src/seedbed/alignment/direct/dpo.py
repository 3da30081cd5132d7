"""`seedbed dpo`: preferences without a reward model. Direct preference optimisation (Rafailov et al. 2023,
arXiv:2305.18290) and its relatives.

Shape suffixes: S preferences, K = 2 answers of each (the better one first), C = 2·S completions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from seedbed.alignment.answers import read_split
from seedbed.alignment.direct.config import DirectConfig
from seedbed.alignment.direct.losses import (
    conservative_loss,
    hinge_loss,
    ipo_loss,
    odds_ratio_loss,
    robust_loss,
    sigmoid_loss,
    simpo_loss,
)
from seedbed.alignment.log_probabilities import completion_log_probabilities
from seedbed.alignment.source import AnswerBatch
from seedbed.alignment.stage import begin, encode_preferences, run_answers
from seedbed.data.preferences import Preference
from seedbed.model.transformer import Transformer
from seedbed.training.objective import Loss, Objective, Tally
from seedbed.training.observers.observer import Observer
from seedbed.training.parallel.launch import in_parallel

REFERENCE_FREE = ("simpo", "orpo")


class DirectObjective(Objective[AnswerBatch]):
    """The chosen loss, a mean over preferences."""

    def __init__(self, config: DirectConfig):
        """`config` is resolved."""
        self.config = config

    def loss(self, model: Transformer, batch: AnswerBatch) -> Loss:
        logs_KS = completion_log_probabilities(model, batch.completions).unflatten(0, (2, -1))
        rewards_KS = self.rewards(logs_KS, batch)
        loss_S = self.costs(logs_KS, rewards_KS, batch)
        if self.config.likelihood and self.config.loss != "orpo":
            loss_S = loss_S - self.config.likelihood * logs_KS[0] / _lengths(batch)[0]
        with torch.no_grad():
            margin_S = rewards_KS[0] - rewards_KS[1]
            totals = {
                "accuracy": (margin_S > 0).sum(),
                "margin": margin_S.sum(),
                "chosen_reward": rewards_KS[0].sum(),
                "rejected_reward": rewards_KS[1].sum(),
                "chosen_log_probability": logs_KS[0].sum(),
                "rejected_log_probability": logs_KS[1].sum(),
            }
        return Loss(loss_S.sum(), len(loss_S), {name: float(total) for name, total in totals.items()})

    def rewards(self, logs_KS: Tensor, batch: AnswerBatch) -> Tensor:
        """What the model implicitly gives for both answers."""
        if self.config.loss in REFERENCE_FREE:
            return self.config.beta * logs_KS / _lengths(batch)
        assert batch.reference_SK is not None  # told when the run began
        return self.config.beta * (logs_KS - batch.reference_SK.T)

    def costs(self, logs_KS: Tensor, rewards_KS: Tensor, batch: AnswerBatch) -> Tensor:
        """The loss of each preference."""
        config, margin_S = self.config, rewards_KS[0] - rewards_KS[1]
        match config.loss:
            case "sigmoid":
                return sigmoid_loss(margin_S)
            case "ipo":
                return ipo_loss(margin_S, config.beta)
            case "hinge":
                return hinge_loss(margin_S)
            case "conservative":
                return conservative_loss(margin_S, config.flipped)
            case "robust":
                return robust_loss(margin_S, config.flipped)
            case "simpo":
                return simpo_loss(margin_S, config.target_margin)
            case "orpo":
                chosen_S, rejected_S = logs_KS / _lengths(batch)
                return odds_ratio_loss(chosen_S, rejected_S, config.beta)

    def report(self, tally: Tally) -> dict[str, float]:
        """ "accuracy": how often the better answer has the higher reward. Log-probabilities are of whole answers."""
        units = tally.units or math.nan
        return {"loss": tally.sum / units} | {name: total / units for name, total in tally.totals.items()}

    def judge(self, metrics: Mapping[str, float]) -> float:
        """As the config says; margin and accuracy are the better the higher."""
        return metrics["loss"] if self.config.judge == "loss" else -metrics[self.config.judge]


def _lengths(batch: AnswerBatch) -> Tensor:
    """Tokens (K, S) of each answer."""
    return batch.completions.lengths_C.unflatten(0, (2, -1))


@in_parallel
def dpo(config: DirectConfig, observers: Sequence[Observer] = ()) -> dict[str, Any]:
    """Learns from preferences; returns the result that `result.json` holds. `observers` watch the run beside those
    that the config asks for."""
    beginning = begin(config)
    parts = read_split(Preference, config.data, config, beginning.counts)
    rows = [encode_preferences(part, beginning) for part in parts]
    objective = DirectObjective(beginning.config)
    compares = config.loss not in REFERENCE_FREE
    return run_answers("dpo", beginning, rows, objective, compares=compares, observers=observers)
