"""The one training loop.

A stage brings a batch source and an objective; the loop owns steps, accumulation, clipping, rates, validation, early
stopping, checkpoints, metrics and resuming. Every optimizer step is a pure function of the weights and the step number:
no clock, no hidden counter, so that a run cut anywhere and taken up again ends in the same bits.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor

from seedbed.data.batch import Batch, BatchSource
from seedbed.devices import peak_memory_mb, synchronise
from seedbed.errors import TrainingError
from seedbed.model.transformer import Transformer
from seedbed.optim.config import OptimizerConfig, ScheduleConfig
from seedbed.optim.groups import build_optimizers, set_rates
from seedbed.optim.schedules import rate_multiple
from seedbed.training.checkpoint import Checkpoints, RunState
from seedbed.training.config import TrainConfig
from seedbed.training.display import Display
from seedbed.training.interruption import Interruption
from seedbed.training.objective import Loss, Objective, Tally
from seedbed.training.parallel.arrangement import arrange
from seedbed.training.parallel.parallel import Rows, local
from seedbed.training.trackers import JsonLines

logger = logging.getLogger(__name__)

B = TypeVar("B", bound=Batch)


@dataclass(frozen=True)
class StepReport:
    """What one optimizer step did."""

    tally: Tally
    gradient_norm: float
    """Before clipping."""
    rate_multiple: float
    tokens: int
    """That went through the model, with and without a target."""
    applied: bool
    """False when the gradient was not finite and the step was left out."""


class Trainer(Generic[B]):
    """Takes a model from where it stands to the last step of its budget."""

    def __init__(
        self,
        model: Transformer,
        objective: Objective[B],
        source: BatchSource[B],
        validation: BatchSource[B] | None,
        *,
        config: TrainConfig,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        run: Path,
        display: Display,
        inputs: Mapping[str, str] | None = None,
    ):
        """`config.steps` is set, whichever budget was asked for; `run` is the folder of the run,
        `inputs` the hashes of what it is made from."""
        assert config.steps is not None
        self.model = model.train()
        self.objective = objective
        self.source = source
        self.validation = validation
        self.config = config
        self.steps = config.steps
        self.schedule = schedule
        self.parallel = arrange(model, config)
        self.optimizers = self.parallel.divide(build_optimizers(model, optimizer))
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.device = self.parameters[0].device
        self.display = display
        self.checkpoints = Checkpoints(run, inputs, self.parallel)
        self.metrics = JsonLines(run / "metrics.jsonl")
        self.timings = JsonLines(run / "timings.jsonl")
        self.progress = RunState()
        self.interrupted = False
        """Stopped by Ctrl-C."""

    # One step --------------------------------------------------------------------------------------------------------

    def step(self) -> StepReport:
        """One optimizer step: gradients of the summed loss, divided once by all units of the step."""
        multiple = rate_multiple(self.schedule, self.progress.step, self.steps)
        set_rates(self.optimizers, multiple)
        tally, tokens = Tally(), 0
        for rows, batch in self.micro_batches(self.progress.step):
            loss = self.loss(rows, batch)
            loss.sum.backward()
            tally, tokens = tally + loss, tokens + (0 if rows.spare else batch.tokens)
        tally, tokens = self.parallel.total(tally, tokens)
        self.parallel.sum_gradients()
        norm = self.normalise_gradients(tally.units)
        applied = math.isfinite(norm) and math.isfinite(tally.sum)
        if applied:
            self.parallel.update(self.optimizers)
        for parameter in self.parameters:
            parameter.grad = None
        self.progress = replace(
            self.progress,
            step=self.progress.step + 1,
            units=self.progress.units + tally.units,
            skipped_in_row=0 if applied else self.progress.skipped_in_row + 1,
        )
        return StepReport(tally, norm, multiple, tokens, applied)

    def micro_batches(self, step: int) -> Iterator[tuple[Rows, B]]:
        """This process's rows of a step, as many at a time as fit."""
        size = self.config.micro_batch or self.config.batch
        for rows in self.parallel.rows(step * self.config.batch, self.config.batch, size):
            yield rows, self.source.batch(rows.first, rows.count).to(self.device)

    def loss(self, rows: Rows, batch: B) -> Loss:
        loss = self.objective.loss(self.model, batch)
        return loss.nothing() if rows.spare else loss

    def normalise_gradients(self, units: int) -> float:
        """Divides by the units of the step, clips, and returns the norm before clipping."""
        gradients: list[Tensor] = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = self.parallel.norm(gradients) / units if units else 0.0
        limit = self.config.clip or math.inf
        scale = min(1.0, limit / (norm + 1e-6)) / max(1, units)
        torch._foreach_mul_([local(gradient) for gradient in gradients], scale)
        return norm

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The objective's metrics over the first rows of the validation data, whose order makes them a sample of it."""
        assert self.validation is not None
        self.model.eval()
        rows = min(self.config.validation_rows, self.validation.samples)
        size = self.config.micro_batch or self.config.batch
        tally = Tally()
        for part in self.parallel.rows(0, rows, size):
            tally = tally + self.loss(part, self.validation.batch(part.first, part.count).to(self.device))
        self.parallel.rest()
        tally, _ = self.parallel.total(tally, 0)
        self.model.train()
        return self.objective.report(tally)

    # The run ---------------------------------------------------------------------------------------------------------

    def train(self) -> bool:
        """Runs to the last step, or until early stopping or a request to stop. True when the run is at its end.

        Raises TrainingError when too many gradients in a row are not finite.
        """
        with Interruption() as interruption, self.display.open(self.steps, self.progress.step), self.saving():
            begins = self.validation is not None and not self.progress.validated
            if begins and self.record_validation() and self.saves_improvements:
                self.save()
            while not self.finished:
                self.run_step()
                if self.parallel.world.any(interruption.requested):
                    logger.info("asked to stop: saving step %d", self.progress.step)
                    self.save()
                    self.interrupted = self.parallel.world.any(interruption.by_person) and not self.finished
                    return self.finished
            if self.progress.step != self.checkpoints.current:
                self.save()
        return True

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Whatever ends the block, a checkpoint that is being written is then on the disk."""
        try:
            yield
        except BaseException:
            self.checkpoints.abandon()
            raise
        self.checkpoints.wait()

    @property
    def finished(self) -> bool:
        patience = self.config.patience
        out_of_patience = patience is not None and self.progress.validations_without_gain >= patience
        return self.progress.step >= self.steps or out_of_patience

    def run_step(self) -> None:
        """One step with all that hangs on it: metrics, validation, checkpoint."""
        start = time.perf_counter()
        report = self.step()
        synchronise(self.device)
        self.record_step(report, time.perf_counter() - start)
        if self.progress.skipped_in_row >= self.config.nonfinite_limit:
            raise TrainingError(
                f"no finite gradient {self.config.nonfinite_limit} times in a row, up to step {self.progress.step}",
                "Lower the learning rates (optimizer.matrix_rate, optimizer.rate); the last checkpoint is untouched.",
            )
        improved = self.validation is not None and self.due(self.validation_interval) and self.record_validation()
        if self.checkpoint_due(improved):
            self.save(background=self.config.checkpoint.background)

    def due(self, interval: int | None) -> bool:
        return interval is not None and (self.progress.step % interval == 0 or self.progress.step == self.steps)

    @property
    def validation_interval(self) -> int:
        return self.config.validate_every or max(1, self.steps // 20)

    @property
    def saves_improvements(self) -> bool:
        return self.config.checkpoint.on_improvement or self.config.select == "best"

    def checkpoint_due(self, improved: bool) -> bool:
        when = self.config.checkpoint
        if improved and self.saves_improvements:
            return True
        if when.steps is None and when.epochs is None and not self.saves_improvements:
            return self.due(self.validation_interval)
        epochs = None
        if when.epochs is not None:
            epochs = max(1, round(when.epochs * self.source.samples / self.config.batch))
        return self.due(when.steps) or self.due(epochs)

    def save(self, *, background: bool = False) -> None:
        """Writes a checkpoint once everything that it claims is on the disk, then removes old ones."""
        if self.parallel.world.leads:
            self.metrics.sync()
        state = (self.model, self.optimizers, self.progress, self.source.fingerprint)
        self.checkpoints.save(*state, keep=self.config.checkpoint.keep, background=background)

    def resume(self, where: str | Path = "auto") -> int:
        """Goes back to the newest whole checkpoint ("auto") or the given one, and cuts the records to it; the step.
        "never": stays where it is."""
        if where == "never":
            return self.progress.step
        if where == "auto":
            progress = self.checkpoints.newest(self.model, self.optimizers, self.source.fingerprint)
        else:
            step = self.checkpoints.step_of(Path(where))
            progress = self.checkpoints.load(step, self.model, self.optimizers, self.source.fingerprint)
        self.progress = progress or RunState()
        if self.parallel.world.leads:
            # Checkpoints go first: one that is left must never claim steps whose records are gone.
            self.checkpoints.drop_after(self.progress.step if progress else -1)
            self.metrics.cut(self.progress.step if progress else -1)
            self.timings.cut(self.progress.step)
        self.parallel.world.wait()
        return self.progress.step

    def load_best(self) -> int | None:
        """Puts the weights of the lowest validation loss into the model; the step, or None when there is none."""
        best = self.progress.best_step
        if best is None or best not in self.parallel.world.led(self.checkpoints.steps):
            return None
        self.checkpoints.load(best, self.model, self.optimizers, self.source.fingerprint)
        return best

    # Records ---------------------------------------------------------------------------------------------------------

    def record_step(self, report: StepReport, seconds: float) -> None:
        """metrics.jsonl takes what is the same in every repetition, timings.jsonl what a clock says."""
        if not self.parallel.world.leads:
            return
        metrics = finite(self.objective.report(report.tally)) if report.applied else {}
        self.display.step(self.progress.step, metrics.get("loss"), report.tokens, seconds)
        if not report.applied:
            logger.warning("step %d left out: its gradient is not finite", self.progress.step)
            self.metrics.append({"step": self.progress.step, "left_out": True})
        elif self.due(self.config.log_every) or self.progress.step == 1:
            self.metrics.append(
                {
                    "step": self.progress.step,
                    **metrics,
                    "gradient_norm": report.gradient_norm,
                    "rate_multiple": report.rate_multiple,
                    "units": self.progress.units,
                }
            )
            self.timings.append({"step": self.progress.step, **self.display.speed(), "peak_rss_mb": peak_memory_mb()})

    def record_validation(self) -> bool:
        """Validates and notes it; whether it is the best so far."""
        metrics = self.validate()
        progress, loss = self.progress, metrics["loss"]
        improved = math.isfinite(loss) and (progress.best_loss is None or loss < progress.best_loss)
        if improved:
            progress = replace(progress, best_step=progress.step, best_loss=loss, validations_without_gain=0)
        else:
            progress = replace(progress, validations_without_gain=progress.validations_without_gain + 1)
        self.progress = progress
        if self.parallel.world.leads:
            self.metrics.append({"step": progress.step, **{f"val_{k}": value for k, value in finite(metrics).items()}})
            self.display.validation(metrics)
        return improved


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Those that are numbers: JSON has no NaN, and a step without any target has no mean loss."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
