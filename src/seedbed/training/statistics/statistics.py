"""Looks into the model every so many steps and writes down what it sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from seedbed.training.observers.config import StatisticsConfig
from seedbed.training.observers.observer import Observer, sample_batch, undisturbed
from seedbed.training.records import finite
from seedbed.training.statistics.activations import activation_statistics
from seedbed.training.statistics.parameters import gradient_norms, group_parameters, update_ratios

if TYPE_CHECKING:
    from seedbed.training.trainer import StepReport, Trainer


class Statistics(Observer):
    """At each look: norms of gradients and sizes of updates by group, activations, logits and attention over the same
    few rows. Between two looks it costs nothing."""

    def __init__(self, config: StatisticsConfig):
        """`config.every` is set."""
        assert config.every is not None
        self.every, self.rows = config.every, config.rows
        self.norms: dict[str, float] = {}
        self.weights: dict[str, list[Tensor]] = {}
        """By group, as they were before the update; empty but while a step is looked at."""

    def before_update(self, trainer: Trainer[Any], norm: float) -> None:
        if (trainer.progress.step + 1) % self.every == 0:
            groups = group_parameters(trainer.model)
            self.norms = gradient_norms(groups, norm)
            copies = {parameter: parameter.detach().clone() for parameter in trainer.parameters}
            self.weights = {name: [copies[parameter] for parameter in group] for name, group in groups.items()}

    def after_step(self, trainer: Trainer[Any], report: StepReport) -> None:
        if trainer.progress.step % self.every:
            return
        found: dict[str, float] = {}
        if self.weights:  # otherwise the step was left out
            found |= {f"gradient_norm/{name}": norm for name, norm in self.norms.items()}
            ratios = update_ratios(self.weights, group_parameters(trainer.model))
            found |= {f"update_ratio/{name}": ratio for name, ratio in ratios.items()}
        self.norms, self.weights = {}, {}
        batch = sample_batch(trainer, self.rows)
        with undisturbed(trainer):
            found |= activation_statistics(trainer.model, lambda: trainer.objective.loss(trainer.model, batch))
        trainer.record("statistics", finite(found))
