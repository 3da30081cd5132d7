"""Measurements that are handed to a run from outside: a person's own metrics, tasks of an evaluation."""

from __future__ import annotations

import importlib
import logging
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from seedbed.errors import ConfigError
from seedbed.model.transformer import Transformer
from seedbed.tokenizers.tokenizer import Tokenizer
from seedbed.training.observers.observer import Observer, sample_batch, undisturbed
from seedbed.training.records import finite

if TYPE_CHECKING:
    from seedbed.training.trainer import StepReport, Trainer

logger = logging.getLogger(__name__)

Measurement = Callable[[Transformer, Tokenizer, Any], Mapping[str, float]]
"""Called with the model as it answers, its tokenizer, and the same few rows of validation data each time."""

ROWS = 8
"""Of that data."""


class Probe(Observer):
    """Calls a measurement every so many steps, and at the end. What it finds is in statistics.jsonl, under its name.

    Gradients are off and chance is seeded by the step: what torch draws inside moves nothing outside. A measurement
    that fails is told of once and left out from then on: training goes on without it.
    """

    def __init__(self, name: str, every: int, tokenizer: Tokenizer, measure: Measurement):
        self.name, self.every, self.tokenizer, self.measure = name, every, tokenizer, measure
        self.failed = False

    def after_step(self, trainer: Trainer[Any], report: StepReport) -> None:
        if self.failed or not trainer.due(self.every):
            return
        try:
            with undisturbed(trainer):
                found = self.measure(trainer.model, self.tokenizer, sample_batch(trainer, ROWS))
        except Exception as error:  # whatever a person's own code may raise
            called = traceback.extract_tb(error.__traceback__)[1:2]  # below this frame: the line of that function
            return self._leave_out(_in_a_line(error, called), error)
        try:
            numbers = {f"{self.name}/{key}": float(value) for key, value in found.items()}
        except Exception as error:
            said = f"it returned {type(found).__name__}, which is not a mapping from names to numbers"
            return self._leave_out(said, error)
        trainer.record("statistics", finite(numbers))

    def _leave_out(self, problem: str, error: Exception) -> None:
        self.failed = True
        logger.warning("the probe %s is left out from here on, the run goes on without it: %s", self.name, problem)
        logger.debug("the probe %s", self.name, exc_info=error)


def _in_a_line(error: Exception, frames: list[traceback.FrameSummary]) -> str:
    """What went wrong, and where in the last of the frames."""
    where = "".join(f" ({frame.filename}, line {frame.lineno})" for frame in frames[-1:])
    return " ".join(f"{type(error).__name__}: {error}".split())[:300] + where


def find_function(place: str) -> Measurement:
    """What package.module:function names, looked up in the current folder too. ConfigError when there is none."""
    module, _, name = place.partition(":")
    here = "" not in sys.path
    if here:
        sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise ConfigError(f"probes.functions: {place} cannot be found: {error}") from error
    except SyntaxError as error:  # which says where by itself
        raise ConfigError(f"probes.functions: {place} cannot be read: {_in_a_line(error, [])}") from error
    except Exception as error:
        said = _in_a_line(error, traceback.extract_tb(error.__traceback__))
        raise ConfigError(f"probes.functions: {place} fails when it is imported: {said}") from error
    finally:
        if here:
            sys.path.remove("")
    if found is None:
        raise ConfigError(f"probes.functions: {place} cannot be found: {module} has no {name}")
    if not callable(found):
        raise ConfigError(f"probes.functions: {place} is no function")
    return found
