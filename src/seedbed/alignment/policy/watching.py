"""What people look at while a policy learns: tables of answers, and warnings of what is known to go wrong."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from seedbed.alignment.policy.config import WarningsConfig
from seedbed.alignment.policy.rollouts import Rollouts
from seedbed.training.observers.observer import Observer

if TYPE_CHECKING:
    from seedbed.training.trainer import StepReport, Trainer

logger = logging.getLogger(__name__)

RECORDS = 10
"""That a mean is taken of."""


class AnswerTable(Observer):
    """Writes answers of a rollout, with their rewards and advantages, to samples.jsonl."""

    def __init__(self, source: Rollouts, rows: int, every: int):
        """`rows` answers of each `every`-th rollout."""
        self.source, self.rows, self.every = source, rows, every

    def after_step(self, trainer: Trainer[Any], report: StepReport) -> None:
        number, place = divmod(trainer.progress.step - 1, self.source.asking.steps)
        if place == 0 and number % self.every == 0:
            for row in self.source.table[: self.rows]:
                trainer.record("samples", row)


class Pathologies(Observer):
    """Warns, once each, when the records of a run show what is known to go wrong with policies."""

    def __init__(self, config: WarningsConfig):
        self.config = config
        self.records: list[Mapping[str, float]] = []
        self.told: set[str] = set()

    def begin(self, trainer: Trainer[Any]) -> None:
        """A run that goes on knows what it was like at first."""
        self.records, self.told = [], set()
        for record in trainer.metrics.records():
            self._take(record)
            self.told |= {name for name, _ in self.found()}

    def recorded(self, trainer: Trainer[Any], name: str, record: Mapping[str, Any]) -> None:
        if name != "metrics" or not self._take(record):
            return
        for pathology, said in self.found():
            if pathology not in self.told:
                self.told.add(pathology)
                logger.warning("%s at step %d: %s", pathology, record["step"], said)

    def _take(self, record: Mapping[str, Any]) -> bool:
        """Whether it is a record of a step that was learned from."""
        learned = "entropy" in record
        if learned:
            self.records.append(record)
        return learned

    def found(self) -> list[tuple[str, str]]:
        """Each pathology that the records show now, and what shows it."""
        if len(self.records) < 2 * RECORDS:
            return []
        first, last = self.records[:RECORDS], self.records[-RECORDS:]

        def mean(records: list[Mapping[str, float]], name: str) -> float:
            return statistics.fmean(record.get(name, 0.0) for record in records)

        told = []
        length, began = mean(last, "length"), mean(first, "length")
        if length > self.config.length * began:
            told.append(("length hacking", f"answers have {length:.0f} tokens, at first {began:.0f}"))
        entropy, began = mean(last, "entropy"), mean(first, "entropy")
        if entropy < self.config.entropy * began:
            told.append(("entropy collapse", f"{entropy:.2g} nats a token, at first {began:.2g}: nothing new is tried"))
        distance = "kl" if "kl" in last[-1] else "approximate_kl"
        if (moved := mean(last, distance)) > self.config.kl:
            told.append(("KL blow-up", f"{moved:.2g} nats a token away: a smaller rate, or more kl, holds it"))
        if (share := mean(last, "zero_variance_groups")) > self.config.saturation:
            worth = mean(last, "reward")
            told.append(("reward saturation", f"{share:.0%} of prompts have answers all worth the same, {worth:.2g}"))
        return told
