"""Tells every tracker that was asked for what the run's own records are told."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedbed.extras import missing
from seedbed.runs import read_json, write_json, writing
from seedbed.training.observers.observer import Observer, sample_batch, undisturbed
from seedbed.training.trackers.tracker import Histogram, TrackedRun, Tracker

if TYPE_CHECKING:
    from seedbed.training.trainer import StepReport, Trainer

logger = logging.getLogger(__name__)

KINDS = {
    "tensorboard": ("tensorboard", "TensorBoard"),
    "wandb": ("wandb", "WeightsAndBiases"),
    "mlflow": ("mlflow", "MLflow"),
    "trackio": ("trackio", "Trackio"),
}
"""The module of each tracker, which has the name of the package that it needs, and its class."""

FOLDER = "tracking"
"""In a run's folder: what the trackers keep there."""

RUNS = "runs.json"
"""In that folder: what each tracker calls this run."""

PATIENCE = 60.0
"""Seconds that a tracker has to hand over the rest when a run ends."""

SECRET = re.compile(r"(KEY|TOKEN|PASSWORD|SECRET)$")
"""How names of environment variables end whose values are never written down."""


def require(names: Sequence[str]) -> None:
    """ConfigError, with the line that installs it, when a tracker's package is not there."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise missing(f"track: {name}", name, "track")


class Trackers(Observer):
    """The trackers of a run. One that fails is told of once and left out from then on: training goes on without it."""

    def __init__(self, names: Sequence[str], config: Mapping[str, Any], histograms_every: int | None = None):
        """`config`: settings by dotted key, without any secret; `histograms_every`: steps, None for never."""
        self.names, self.config, self.histograms_every = names, config, histograms_every
        self.trackers: dict[str, Tracker] = {}

    def begin(self, trainer: Trainer[Any]) -> None:
        folder = trainer.run / FOLDER
        with writing(folder):
            folder.mkdir(exist_ok=True)
        known = _read_ids(folder / RUNS)
        ids = dict(known)
        for name in self.names:
            run = TrackedRun(trainer.run.resolve().name, folder, self.config, known.get(name), trainer.progress.step)
            self._guarded(name, self._open, name, run)
            if name in self.trackers:
                ids[name] = self.trackers[name].id
        write_json(folder / RUNS, ids)
        tokens_BT = getattr(sample_batch(trainer, 1), "tokens_BT", None)
        if tokens_BT is not None and known.keys().isdisjoint(self.names):
            with undisturbed(trainer):
                self._tell(lambda tracker: tracker.graph(trainer.model, tokens_BT))

    def before_update(self, trainer: Trainer[Any], norm: float) -> None:
        if self.histograms_every and (trainer.progress.step + 1) % self.histograms_every == 0:
            named = trainer.model.named_parameters()
            self._draw(trainer.progress.step + 1, {f"gradients/{n}": p.grad for n, p in named if p.grad is not None})

    def after_step(self, trainer: Trainer[Any], report: StepReport) -> None:
        if self.histograms_every and trainer.progress.step % self.histograms_every == 0:
            self._draw(trainer.progress.step, {f"weights/{n}": p for n, p in trainer.model.named_parameters()})

    def _draw(self, step: int, tensors: Mapping[str, Any]) -> None:
        found = {name: Histogram.of(tensor) for name, tensor in tensors.items()}
        self._tell(lambda tracker: tracker.histograms(step, found))

    def recorded(self, trainer: Trainer[Any], name: str, record: Mapping[str, Any]) -> None:
        step = record["step"]
        numbers = {
            f"{name}/{key}": float(v) for key, v in record.items() if key != "step" and isinstance(v, int | float)
        }
        if numbers:
            self._tell(lambda tracker: tracker.scalars(step, numbers))
        if "text" in record:
            text = f"**{record.get('prompt', '')}**{record['text']}"
            self._tell(lambda tracker: tracker.text(step, name, text))

    def end(self, trainer: Trainer[Any]) -> None:
        """Each has a while to hand over the rest: a dead network must not keep a finished run from ending."""
        for name, tracker in list(self.trackers.items()):
            work = (name, tracker.close, trainer.finished)
            closing = threading.Thread(target=self._guarded, args=work, daemon=True, name=f"closing {name}")
            closing.start()
            closing.join(PATIENCE)
            if closing.is_alive():
                logger.warning("%s did not take all that was to be told within %.0f s; left so", name, PATIENCE)
        self.trackers.clear()

    def _tell(self, say: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.trackers.items()):
            self._guarded(name, say, tracker)

    def _open(self, name: str, run: TrackedRun) -> None:
        module, kind = KINDS[name]
        self.trackers[name] = getattr(importlib.import_module(f"seedbed.training.trackers.{module}"), kind)(run)

    def _guarded(self, name: str, work: Callable[..., None], *arguments: object) -> None:
        try:
            work(*arguments)
        except Exception as error:  # whatever a tool that is only looked at may raise
            self.trackers.pop(name, None)
            said = scrubbed(f"{type(error).__name__}: {error}")
            logger.warning("%s is left out from here on, the run goes on without it: %s", name, said)


def _read_ids(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    return {name: value for name, value in read_json(path).items() if name in KINDS and isinstance(value, str)}


def scrubbed(text: str) -> str:
    """On one line, without names and passwords in addresses, and without the values of variables that are secrets."""
    for name, value in os.environ.items():
        if SECRET.search(name.upper()) and len(value) >= 4:
            text = text.replace(value, "…")
    return " ".join(re.sub(r"://[^/\s@]+@", "://…@", text).split())[:500]
