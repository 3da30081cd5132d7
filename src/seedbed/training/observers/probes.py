"""Measurements that are handed to a run from outside: a person's own metrics, tasks of an evaluation."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from seedbed.errors import ConfigError, TrainingError
from seedbed.model.transformer import Transformer
from seedbed.tokenizers.tokenizer import Tokenizer
from seedbed.training.observers.observer import Observer, sample_batch, undisturbed

if TYPE_CHECKING:
    from seedbed.training.trainer import StepReport, Trainer

Measurement = Callable[[Transformer, Tokenizer, Any], Mapping[str, float]]
"""Called with the model as it answers, its tokenizer, and the same few rows of validation data each time."""

ROWS = 8
"""Of that data."""


class Probe(Observer):
    """Calls a measurement every so many steps, and at the end. What it finds is in statistics.jsonl, under its name.

    Gradients are off and chance is seeded by the step: what torch draws inside moves nothing outside.
    """

    def __init__(self, name: str, every: int, tokenizer: Tokenizer, measure: Measurement):
        self.name, self.every, self.tokenizer, self.measure = name, every, tokenizer, measure

    def after_step(self, trainer: Trainer[Any], report: StepReport) -> None:
        if not trainer.due(self.every):
            return
        with undisturbed(trainer):
            found = self.measure(trainer.model, self.tokenizer, sample_batch(trainer, ROWS))
        try:
            numbers = {f"{self.name}/{key}": float(value) for key, value in found.items()}
        except (AttributeError, TypeError, ValueError):
            problem = f"{self.name} returned {type(found).__name__}, which is not a mapping from names to numbers"
            raise TrainingError(problem, "The last checkpoint is untouched: mend it and go on.") from None
        trainer.record("statistics", {name: number for name, number in numbers.items() if math.isfinite(number)})


def find_function(place: str) -> Measurement:
    """What package.module:function names, looked up in the current folder too. ConfigError when there is none."""
    module, _, name = place.partition(":")
    here = "" not in sys.path
    if here:
        sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"probes.functions: {place} cannot be found: {error}") from error
    finally:
        if here:
            sys.path.remove("")
    if not callable(found):
        raise ConfigError(f"probes.functions: {place} is no function")
    return found
