"""Learning-rate schedules: pure functions of the step, so that a resumed run needs no state for them.

- cosine: Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, without restarts
- warmup-stable-decay: Hu et al. 2024, arXiv:2404.06395, §4.1, with a linear fall (Hägele et al. 2024, arXiv:2405.18392)
"""

from __future__ import annotations

import math

from seedbed.optim.config import ScheduleConfig


def rate_multiple(config: ScheduleConfig, step: int, steps: int) -> float:
    """What the peak rates are multiplied with at `step` of `steps`, counted from 0. In (0, 1]."""
    warmup = round(config.warmup * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.name == "cosine":
        done = (step - warmup) / max(1, steps - warmup)
        return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * done))
    decay = config.decay * steps
    left = (steps - step) / decay if decay else 1.0
    return config.final + (1 - config.final) * min(1.0, left)
