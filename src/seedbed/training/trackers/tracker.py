"""What every tracker can be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from seedbed.model.transformer import Transformer


@dataclass(frozen=True)
class TrackedRun:
    """The run that a tracker follows."""

    name: str
    """Of its folder."""
    folder: Path
    """Of the tracker's own files, inside the run's; it exists."""
    config: Mapping[str, Any]
    """Settings by dotted key: no path and no secret among them."""
    id: str | None
    """What the tracker called this run when it began; None for a new one."""
    step: int
    """From which it goes on."""


@dataclass(frozen=True)
class Histogram:
    """How the numbers of a tensor are spread."""

    counts: np.ndarray
    """How many lie in each bin."""
    edges: np.ndarray
    """One more than there are bins."""
    sum: float
    sum_of_squares: float

    @classmethod
    def of(cls, tensor: Tensor, bins: int = 64) -> Histogram:
        values = tensor.detach().double().flatten().cpu()
        counts, edges = np.histogram(values.numpy(), bins)
        return cls(counts, edges, float(values.sum()), float(values.square().sum()))


class Tracker:
    """A tool that shows runs. What it cannot show it leaves out; what goes wrong inside is an exception, which costs
    the run its tracker and nothing else."""

    id: str
    """By which the same run is found again."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step, by names with slashes."""

    def text(self, step: int, name: str, text: str) -> None:
        """Something to read."""

    def histograms(self, step: int, found: Mapping[str, Histogram]) -> None:
        """How tensors are spread, by their names."""

    def graph(self, model: Transformer, tokens_BT: Tensor) -> None:
        """What the model is made of; called once for a new run."""

    def close(self, finished: bool) -> None:
        """Everything is handed over. The run is at its end or will go on another day."""
