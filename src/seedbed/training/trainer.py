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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from seedbed.data.batches.batch import Batch, BatchSource
from seedbed.data.batches.mixture import MixtureSource
from seedbed.devices import synchronise
from seedbed.model.routing import balance_experts
from seedbed.model.transformer import Transformer
from seedbed.optim.config import OptimizerConfig, ScheduleConfig
from seedbed.optim.groups import build_optimizers, set_rates
from seedbed.optim.schedules import rate_multiple
from seedbed.training.average import WeightAverage
from seedbed.training.checkpoint import Checkpoints
from seedbed.training.compilation import compile_blocks
from seedbed.training.config import TrainConfig
from seedbed.training.display import Display
from seedbed.training.interruption import Interruption
from seedbed.training.meter import Meter
from seedbed.training.objective import Loss, Objective, Tally
from seedbed.training.observers.observer import Observer, Observers
from seedbed.training.parallel.arrangement import arrange
from seedbed.training.parallel.parallel import Rows, local
from seedbed.training.precision import Precision
from seedbed.training.recompute import recompute_blocks
from seedbed.training.records import JsonLines, finite
from seedbed.training.rollback import WINDOW, past_trouble, refuse_rollback, trouble
from seedbed.training.run_state import RunState

logger = logging.getLogger(__name__)

B = TypeVar("B", bound=Batch)

RECORDS = ("metrics", "statistics", "samples", "timings")
"""What a run writes down, NAME.jsonl each. All but the timings are the same in every repetition."""


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
    overflowed: bool = False
    """It was left out because the scale of the loss was too large for fp16, which is no failure."""


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
        observers: Sequence[Observer] = (),
        state: Mapping[str, Tensor] | None = None,
    ):
        """`config.steps` is set, whichever budget was asked for; `run` is the folder of the run,
        `inputs` the hashes of what it is made from; `observers` watch it and move nothing; `state` is what a checkpoint
        holds for the batch source, which has and fills these very tensors."""
        config = config.resolve()
        assert config.steps is not None
        self.model = model.train()
        self.objective = objective
        self.source = source
        self.validation = validation
        self.config = config
        self.steps = config.steps
        self.batch_schedule = config.batch_schedule
        self.schedule = schedule
        self.parallel = arrange(model, config)
        self.optimizers = self.parallel.divide(build_optimizers(model, optimizer))
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.device = self.parameters[0].device
        self.precision = Precision(config.precision, self.device)
        self.precision.prepare(model)
        model.attend_by(config.attention)
        if config.compile == "on":
            compile_blocks(model)
        if config.recompute != "none":
            recompute_blocks(model, config.recompute)
        self.average = WeightAverage(model.moving, config.average, self.steps) if config.select == "average" else None
        self.state = state or {}
        self.display = display
        self.checkpoints = Checkpoints(run, inputs, self.parallel)
        self.run = run
        self.records = {name: JsonLines(run / f"{name}.jsonl") for name in RECORDS}
        self.metrics = self.records["metrics"]
        self.meter = Meter(self.device)
        self.observers = Observers(observers)
        self.progress = RunState()
        self.asked_to_stop = False
        """By anyone, also in a last step, after which it was finished."""
        self.interrupted = False
        """Stopped by Ctrl-C."""
        self.observers.check(self)

    # One step --------------------------------------------------------------------------------------------------------

    def step(self) -> StepReport:
        """One optimizer step: gradients of the summed loss, divided once by all units of the step."""
        multiple = rate_multiple(self.schedule, self.progress.step, self.steps)
        set_rates(self.optimizers, multiple)
        # What dropout leaves out follows from the seed and the step, not from the steps before.
        self.parallel.seed(f"{self.config.seed}, {self.progress.step}")
        tally, tokens = Tally(), 0
        for rows, batch in self.micro_batches(self.progress.step):
            loss = self.loss(rows, batch)
            self.precision.backward(loss.sum, self.progress)
            tally, tokens = tally + loss, tokens + (0 if rows.spare else batch.tokens)
        tally, tokens = self.parallel.total(tally, tokens)
        self.parallel.sum_gradients()
        norm = self.normalise_gradients(tally.units * self.precision.scale(self.progress))
        overflowed = self.precision.overflowed(self.progress, tally.sum, norm)
        applied = math.isfinite(norm) and math.isfinite(tally.sum)
        if applied:
            self.observers.before_update(self, norm)
            self.parallel.update(self.optimizers)
            balance_experts(self.model, tally.totals)
        for parameter in self.parameters:
            parameter.grad = None
        self.progress = replace(
            self.progress,
            step=self.progress.step + 1,
            units=self.progress.units + tally.units,
            skipped_in_row=0 if applied else self.progress.skipped_in_row + (not overflowed),
        )
        if applied and tally.units:
            losses = (*self.progress.recent_losses, tally.sum / tally.units)
            self.progress = replace(self.progress, recent_losses=losses[-WINDOW - 1 :])
        if self.average is not None:
            self.average.update(self.progress.step)
        self.progress = self.precision.adjusted(self.progress, overflowed=overflowed)
        return StepReport(tally, norm, multiple, tokens, applied, overflowed)

    def micro_batches(self, step: int) -> Iterator[tuple[Rows, B]]:
        """This process's rows of a step, as many at a time as fit."""
        step += self.progress.skipped_batches
        begin, count = self.batch_schedule.first(step), self.batch_schedule.size(step)
        for rows in self.parallel.rows(begin, count, self.config.micro_batch or count):
            yield rows, self.meter.batch(self.source, rows.first, rows.count).to(self.device)

    def loss(self, rows: Rows, batch: B) -> Loss:
        with self.precision.compute():
            loss = self.objective.loss(self.model, batch)
        return loss.nothing() if rows.spare else loss

    def normalise_gradients(self, units: float) -> float:
        """Divides by the units of the step times the scale of its loss, clips, and returns the norm before clipping."""
        gradients: list[Tensor] = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = self.parallel.norm(gradients) / units if units else 0.0
        limit = self.config.clip or math.inf
        scale = min(1.0, limit / (norm + 1e-6)) / (units or 1)
        torch._foreach_mul_([local(gradient) for gradient in gradients], scale)
        return norm

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The objective's metrics over the first rows of the validation data, whose order makes them a sample of it; of
        a mixture also those of each part, as loss/NAME. They are those of the average of the weights, if that is what
        becomes the model."""
        assert self.validation is not None
        self.model.eval()
        rows = min(self.config.validation_rows, self.validation.samples)
        parts: Mapping[str, tuple[BatchSource[Any], int]] = {"": (self.validation, rows)}
        if isinstance(self.validation, MixtureSource):
            parts = self.validation.parts(rows)
        size = self.config.micro_batch or self.config.batch
        whole, tallies = Tally(), dict.fromkeys(parts, Tally())
        with self.average.in_model(self.progress.step) if self.average else contextlib.nullcontext():
            for name, (source, count) in parts.items():
                for rows_here in self.parallel.rows(0, count, size):
                    loss = self.loss(rows_here, source.batch(rows_here.first, rows_here.count).to(self.device))
                    whole, tallies[name] = whole + loss, tallies[name] + loss
            self.parallel.rest()
        whole, _ = self.parallel.total(whole, 0)
        tallies = {name: self.parallel.total(tally, 0)[0] for name, tally in tallies.items()}
        self.model.train()
        metrics = self.objective.report(whole)
        if len(parts) > 1:
            each = {name: self.objective.report(tally) for name, tally in tallies.items()}
            metrics |= {f"{key}/{name}": value for name, report in each.items() for key, value in report.items()}
        return metrics

    # The run ---------------------------------------------------------------------------------------------------------

    def train(self) -> bool:
        """Runs to the last step, or until early stopping or a request to stop. True when the run is at its end.

        Raises TrainingError when too many gradients in a row are not finite, or the run would go back too often.
        """
        progress = self.display.open(self.steps, self.progress.step)
        with Interruption() as interruption, progress, self.saving(), self.observers.watching(self):
            begins = self.validation is not None and not self.progress.validated
            improved = begins and self.record_validation()
            nothing_to_go_back_to = self.config.rollback.spike is not None and self.checkpoints.current is None
            if (improved and self.saves_improvements) or nothing_to_go_back_to:
                self.save()
            while not self.finished:
                self.run_step()
                if self.parallel.world.any(interruption.requested):
                    logger.info("asked to stop: saving step %d", self.progress.step)
                    break
            if self.progress.step != self.checkpoints.current:
                self.save()
            self.asked_to_stop = self.parallel.world.any(interruption.requested)
            self.interrupted = self.parallel.world.any(interruption.by_person) and not self.finished
        return self.finished

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
        self.observers.after_step(self, report)
        if (problem := trouble(self.progress, self.config)) is not None:
            return self.roll_back(problem)
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
        when, step = self.config.checkpoint, self.progress.step
        if self.progress.skipped_in_row:
            return False  # in trouble: it would push out a checkpoint from before it, and there is nothing to lose
        if improved and self.saves_improvements:
            return True
        if when.steps is None and when.epochs is None and not when.on_improvement:
            return self.due(self.validation_interval)
        if self.due(when.steps):
            return True
        if when.epochs is None:
            return False
        # So many passes are full, which before this step they were not.
        passes = [self.batch_schedule.first(step) // (when.epochs * self.source.samples) for step in (step - 1, step)]
        return passes[0] != passes[1] or step == self.steps

    @property
    def further(self) -> dict[str, Tensor]:
        """What a checkpoint holds beside model and optimizers."""
        return {**self.state, **(self.average.tensors if self.average is not None else {})}

    def save(self, *, background: bool = False) -> None:
        """Writes a checkpoint once everything that it claims is on the disk, then removes old ones."""
        if self.parallel.world.leads:
            for records in self.records.values():
                records.sync()
        state = (self.model, self.optimizers, self.progress, self.source.fingerprint, self.further)
        self.checkpoints.save(*state, keep=self.config.checkpoint.keep, background=background)

    def resume(self, where: str | Path = "auto") -> int:
        """Goes back to the newest whole checkpoint ("auto") or the given one, and cuts the records to it; the step.
        "never": stays where it is."""
        if where == "never":
            return self.progress.step
        if where == "auto":
            progress = self.checkpoints.newest(self.model, self.optimizers, self.source.fingerprint, self.further)
        else:
            step = self.checkpoints.step_of(Path(where))
            progress = self.checkpoints.load(step, self.model, self.optimizers, self.source.fingerprint, self.further)
        self.progress = progress or RunState()
        if self.parallel.world.leads:
            # Checkpoints go first: one that is left must never claim steps whose records are gone.
            self.checkpoints.drop_after(self.progress.step if progress else -1)
            for records in self.records.values():
                records.cut(self.progress.step if progress else -1)
        self.parallel.world.wait()
        return self.progress.step

    def roll_back(self, problem: str) -> None:
        """Goes on from the last checkpoint, past the batches since. TrainingError when that is not wanted, or was done
        often enough."""
        troubled = self.progress
        refuse_rollback(troubled, self.config, problem)
        self.checkpoints.wait()
        step = self.resume()
        self.progress = past_trouble(troubled, self.progress, self.config)
        skipped = self.progress.skipped_batches - troubled.skipped_batches
        logger.warning("%s: back to step %d, past %d batches", problem, step, skipped)

    def load_best(self) -> int | None:
        """Puts the weights of the lowest validation loss into the model; the step, or None when there is none."""
        best = self.progress.best_step
        if best is None or best not in self.parallel.world.led(self.checkpoints.steps):
            return None
        self.checkpoints.load(best, self.model, self.optimizers, self.source.fingerprint, self.further)
        return best

    # Records ---------------------------------------------------------------------------------------------------------

    def record(self, name: str, values: Mapping[str, Any]) -> None:
        """One more line of NAME.jsonl, of the step that the run has come to; the observers hear of it."""
        if not self.parallel.world.leads:
            return
        record = {"step": self.progress.step, **values}
        self.records[name].append(record)
        self.observers.recorded(self, name, record)

    def record_step(self, report: StepReport, seconds: float) -> None:
        """metrics.jsonl takes what is the same in every repetition, timings.jsonl what a clock says."""
        if not self.parallel.world.leads:
            return
        metrics = finite(self.objective.report(report.tally)) if report.applied else {}
        self.display.step(self.progress.step, metrics.get("loss"), report.tokens, seconds)
        if not report.applied:
            if report.overflowed:
                scale = self.precision.scale(self.progress)
                logger.info("step %d left out: too large for fp16, the next scale is %g", self.progress.step, scale)
            else:
                logger.warning("step %d left out: its gradient is not finite", self.progress.step)
            self.record("metrics", {"left_out": True})
        elif self.due(self.config.log_every) or self.progress.step == 1:
            norm, multiple = report.gradient_norm, report.rate_multiple
            counts = {"gradient_norm": norm, "rate_multiple": multiple, "units": self.progress.units}
            if self.progress.rollbacks:
                counts |= {"rollbacks": self.progress.rollbacks, "skipped_batches": self.progress.skipped_batches}
            self.record("metrics", {**metrics, **counts})
            self.record("timings", {**self.display.speed(), **self.meter.read()})

    def record_validation(self) -> bool:
        """Validates and notes it; whether it is the best so far."""
        metrics = self.validate()
        progress, loss = self.progress, self.objective.judge(metrics)
        improved = math.isfinite(loss) and (progress.best_loss is None or loss < progress.best_loss)
        improved = (
            improved and not progress.skipped_in_row
        )  # then nothing is saved, and it would be the best for nought
        if improved:
            progress = replace(progress, best_step=progress.step, best_loss=loss, validations_without_gain=0)
        else:
            progress = replace(progress, validations_without_gain=progress.validations_without_gain + 1)
        self.progress = progress
        self.record("metrics", {f"val_{key}": value for key, value in finite(metrics).items()})
        self.display.validation(metrics)
        return improved
