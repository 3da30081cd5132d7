"""What watches a run from beside it: trackers, statistics, alerts, samples, a profiler.

The trainer holds one list of observers and tells them what happens. An observer may look at everything and moves
nothing: a run ends in the same bits with and without it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from seedbed.training.trainer import StepReport, Trainer


class Observer:
    """Told of each event of a run; each of these does nothing until a kind of observer says otherwise."""

    def check(self, trainer: Trainer[Any]) -> None:
        """The trainer is made, and nothing of the run's folder is touched yet. A SeedbedError refuses the run."""

    def begin(self, trainer: Trainer[Any]) -> None:
        """The run begins, or goes on, at `trainer.progress.step`."""

    def before_update(self, trainer: Trainer[Any], norm: float) -> None:
        """Gradients are there, divided and clipped, and weights have not moved yet; `norm` was theirs before clipping.
        `trainer.progress.step` steps were done before. Not called for a step that is left out."""

    def after_step(self, trainer: Trainer[Any], report: StepReport) -> None:
        """Step `trainer.progress.step` is done and noted. Validation and checkpoint, when they are due, come next, so
        that a checkpoint never claims a step that an observer has not seen. A SeedbedError ends the run."""

    def recorded(self, trainer: Trainer[Any], name: str, record: Mapping[str, Any]) -> None:
        """A line was added to NAME.jsonl; its "step" is among its values."""

    def end(self, trainer: Trainer[Any]) -> None:
        """The run is over, or stopped, or has failed."""


class Observers(Observer):
    """All observers of a run, told in their order."""

    def __init__(self, members: Iterable[Observer] = ()):
        self.members = tuple(members)

    def check(self, trainer: Trainer[Any]) -> None:
        for member in self.members:
            member.check(trainer)

    @contextlib.contextmanager
    def watching(self, trainer: Trainer[Any]) -> Iterator[None]:
        """From beginning to end, whatever the end is: who began is told of it."""
        with contextlib.ExitStack() as stack:
            for member in self.members:
                member.begin(trainer)
                stack.callback(member.end, trainer)
            yield

    def before_update(self, trainer: Trainer[Any], norm: float) -> None:
        for member in self.members:
            member.before_update(trainer, norm)

    def after_step(self, trainer: Trainer[Any], report: StepReport) -> None:
        for member in self.members:
            member.after_step(trainer, report)

    def recorded(self, trainer: Trainer[Any], name: str, record: Mapping[str, Any]) -> None:
        for member in self.members:
            member.recorded(trainer, name, record)


@contextlib.contextmanager
def undisturbed(trainer: Trainer[Any]) -> Iterator[None]:
    """Inside, the model answers as it would when it is used, and chance begins anew from the step's number; afterwards
    its mode and the random numbers that training goes on with are what they were."""
    training, device = trainer.model.training, trainer.device
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices, device_type="cuda" if device.type == "cpu" else device.type), torch.no_grad():
        torch.manual_seed(trainer.progress.step)
        trainer.model.eval()
        try:
            yield
        finally:
            trainer.model.train(training)


def sample_batch(trainer: Trainer[Any], rows: int) -> Any:
    """The first rows of the validation data, or of the training data where there is none: the same at every look."""
    source = trainer.validation or trainer.source
    return source.batch(0, min(rows, source.samples)).to(trainer.device)
