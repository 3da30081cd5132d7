"""From minutes to the number of steps that a run writes into its config.

The number is fixed before the first step and every step is the same whatever a clock says, so that a run that is
stopped and goes on ends in the same bits. What a step takes is measured on warm steps of a trainer that is thrown away.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from seedbed.training.config import TrainConfig
from seedbed.training.parallel.world import World
from seedbed.training.trainer import Trainer

WARM_UP_STEPS, WARM_UP_SECONDS = 3, 1.0
"""At least so many steps and so long before it counts: buffers are allocated, kernels chosen, and a processor that was
idle is slower once it is busy."""

MEASURED_STEPS, MEASURED_SECONDS = 20, 5.0
"""At least so many steps and so long are counted, …"""

MOST_STEPS = 1_000
"""Enough to know, whatever the clock says: it may stand still or be set back."""

MEASURED_SHARE = 0.1
"""… but both together take no more than this share of the minutes, the warming a quarter of it."""

USED = 0.98
"""Of the time: the rest is for a machine that slows down as it warms."""

FEW_STEPS = 100
"""Fewer than these teach nothing, whatever the model."""

LONG_DAYS = 1
"""More than so many are said before they begin."""


@dataclass(frozen=True)
class Costs:
    """Seconds of a step of the first batch, a validation and a checkpoint on this machine."""

    step: float
    validation: float
    checkpoint: float
    later: Sequence[tuple[int, float]] = ()
    """From which steps on a step takes other seconds, as with longer rows, and how many."""

    @property
    def phases(self) -> list[tuple[int, float]]:
        """First step and seconds a step of each stretch of equal steps."""
        return [(0, self.step), *self.later]


def measure(trainer: Trainer[Any], seconds: float, phases: Sequence[int] = (0,)) -> Costs:
    """Runs the trainer for a while, at most about so long; its folder and weights are of no use afterwards. `phases`
    are the steps from which on a step may cost something else, the first one 0."""
    _, warming = _run(trainer, WARM_UP_STEPS, WARM_UP_SECONDS, seconds / 4)
    costs = []
    for first in phases:
        trainer.progress = replace(trainer.progress, step=first)
        each = (MEASURED_SECONDS / len(phases), (seconds - warming) / len(phases))
        steps, taken = _run(trainer, MEASURED_STEPS, *each)
        costs.append((first, taken / steps))
    validation = _seconds(trainer.validate) if trainer.validation is not None else 0.0
    return Costs(costs[0][1], validation, _seconds(trainer.save), costs[1:])


def _run(trainer: Trainer[Any], steps: int, seconds: float, most: float) -> tuple[int, float]:
    """At least so many steps and seconds, but at most a third number of seconds; how many of each it became."""
    done, began = 0, time.perf_counter()
    while True:
        trainer.run_step()
        done, taken = done + 1, time.perf_counter() - began
        enough = (done >= steps and taken >= seconds) or taken >= most or done == MOST_STEPS
        if World.here().tell(enough):  # clocks differ, and all processes must do as many steps
            return done, max(taken, 1e-6 * done)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return max(time.perf_counter() - began, 0.0)


def fit(train: TrainConfig, costs: Costs, seconds: float) -> TrainConfig:
    """With as many steps as fill the time, and, where it is left out, a validation interval that takes at most a tenth
    of it."""
    # Before the first step and after the last a validation; at the end a checkpoint and the model, which is as large.
    seconds = USED * seconds - 2 * (costs.validation + costs.checkpoint)
    least = min(step for _, step in costs.phases)
    interval = train.validate_every or max(
        math.ceil(9 * costs.validation / least), _steps_within(seconds, costs.phases, 0.0) // 20, 1
    )
    besides = costs.validation / interval + costs.checkpoint / (train.checkpoint.steps or interval)
    return replace(train, steps=max(1, _steps_within(seconds, costs.phases, besides)), validate_every=interval)


def _steps_within(seconds: float, phases: Sequence[tuple[int, float]], besides: float) -> int:
    """How many steps the time holds, `besides` the seconds that each takes on top of its own."""
    for (first, step), (following, _) in itertools.pairwise(phases):
        if seconds < (following - first) * (step + besides):
            break
        seconds -= (following - first) * (step + besides)
    else:
        first, step = phases[-1]
    return first + int(seconds / (step + besides))


def few_steps(train: TrainConfig) -> str | None:
    """What to say of minutes that hold too few steps; None when they hold enough, or the steps were asked for."""
    if train.minutes is None or train.steps is None or train.steps >= FEW_STEPS:
        return None
    what = "1 step is all that is done in" if train.steps == 1 else f"{train.steps} steps fit into"
    remedy = "more minutes" if os.environ.get("OMP_NUM_THREADS") == "1" else "OMP_NUM_THREADS=1, or more minutes"
    return f"{what} {train.minutes:.3g} minutes: too few to learn; other programs use the cores? Try {remedy}."


def long_run(seconds: float) -> str | None:
    """What to say of a run that takes days; None of a shorter one."""
    if seconds < LONG_DAYS * 86_400:
        return None
    return (
        f"the run takes {seconds / 86_400:,.1f} days or more on this device, by the measured speed of its matrix "
        "products; --train.minutes makes it as long as you like."
    )
