"""Where the time of a few steps goes, operator by operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.profiler import ProfilerActivity, profile, supported_activities

from seedbed.runs import write_atomic, writing
from seedbed.training.observers.config import ProfileConfig
from seedbed.training.observers.observer import Observer

if TYPE_CHECKING:
    from seedbed.training.trainer import StepReport, Trainer

FOLDER, TRACE, TABLE = "profile", "trace.json", "operators.txt"

ROWS = 40
"""Operators in the table."""


class Profiler(Observer):
    """Records `steps` steps from `from_step` on. A run that goes on past them records nothing."""

    def __init__(self, config: ProfileConfig):
        """`config.steps` is set."""
        assert config.steps is not None
        self.first, self.last = config.from_step, config.from_step + config.steps - 1
        self.profile: profile | None = None

    def begin(self, trainer: Trainer[Any]) -> None:
        self._start(trainer)

    def after_step(self, trainer: Trainer[Any], report: StepReport) -> None:
        if trainer.progress.step == self.last:
            self._write(trainer)
        self._start(trainer)

    def end(self, trainer: Trainer[Any]) -> None:
        """Steps that were recorded before a run stopped early are worth a look too."""
        self._write(trainer)

    def _start(self, trainer: Trainer[Any]) -> None:
        if trainer.progress.step + 1 == self.first:
            kinds = supported_activities() & {ProfilerActivity.CPU, ProfilerActivity.CUDA, ProfilerActivity.XPU}
            self.profile = profile(activities=kinds, record_shapes=True)
            self.profile.start()

    def _write(self, trainer: Trainer[Any]) -> None:
        if self.profile is None:
            return
        recorded, self.profile = self.profile, None
        recorded.stop()
        folder = trainer.run / FOLDER
        with writing(folder):
            folder.mkdir(exist_ok=True)
            recorded.export_chrome_trace(str(folder / TRACE))
        by = "self_cpu_time_total" if trainer.device.type == "cpu" else "self_device_time_total"
        table = recorded.key_averages().table(sort_by=by, row_limit=ROWS)
        write_atomic(folder / TABLE, table.encode())
