"""Going back behind a spike of the loss, and past the batches that it came with.

Chowdhery et al. 2022 (PaLM), arXiv:2204.02311, §5.1: a run whose loss spiked was started again from a checkpoint
before the spike and left out the batches seen before and in it, 200 to 500 of them; the spike did not come back. Nor
did it come from those batches alone: with other weights they did no harm.

Whether a step is in trouble follows from the state of the run, and so does where it goes on. A run that is killed after
it went back, and before its next checkpoint, meets the same spike again and goes back again, to the same bits.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from seedbed.errors import TrainingError
from seedbed.training.config import TrainConfig
from seedbed.training.run_state import RunState

WINDOW, ENOUGH = 50, 10
"""Losses that the median is taken of, and how many there must be."""


def exceeded_median(losses: Sequence[float], factor: float) -> float | None:
    """The median of the losses before the last one, if the last is more than `factor` times as large; else None. None
    too while there are few of them, and at or below nought, where no loss is a multiple of another."""
    if len(losses) <= ENOUGH:
        return None
    *before, last = losses
    median = statistics.median(before[-WINDOW:])
    return median if last > factor * median > 0 else None


def trouble(state: RunState, config: TrainConfig) -> str | None:
    """What is wrong with the step that was just done; None when nothing is."""
    if state.skipped_in_row >= config.nonfinite_limit:
        return f"no finite gradient {config.nonfinite_limit} times in a row, up to step {state.step}"
    if config.rollback.spike is None:
        return None
    median = exceeded_median(state.recent_losses, config.rollback.spike)
    if median is None:
        return None
    return f"the loss is {state.recent_losses[-1]:.4g} at step {state.step}, its median was {median:.4g}"


def refuse_rollback(state: RunState, config: TrainConfig, problem: str) -> None:
    """TrainingError when a run in trouble is not to go back, or has done so often enough."""
    if config.rollback.spike is None:
        raise TrainingError(
            problem,
            "Lower the learning rates (optimizer.matrix_rate, optimizer.rate); the last checkpoint is untouched. "
            "A new run given --train.rollback.spike 2 goes back and past such batches by itself.",
        )
    if state.rollbacks >= config.rollback.most:
        raise TrainingError(
            f"{problem}, after {state.rollbacks} rollbacks",
            "Lower the learning rates: the trouble is not in the batches. The last checkpoint is untouched.",
        )


def past_trouble(troubled: RunState, checkpoint: RunState, config: TrainConfig) -> RunState:
    """The state of a checkpoint, with all that was left out so far left out, and the batches of the trouble too. Steps
    in a row that were not finite, in a checkpoint that a request to stop made amid them, are counted anew."""
    left_out = max(config.rollback.skip, troubled.step - checkpoint.step)
    skipped = troubled.skipped_batches + left_out
    return replace(checkpoint, skipped_in_row=0, skipped_batches=skipped, rollbacks=troubled.rollbacks + 1)
