"""Learning-rate schedules: pure functions of the step, so that a resumed run needs no state for them.

- cosine: Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, without restarts
- linear, polynomial: half of the way a line, or a power of what is left (Devlin et al. 2019; Chen et al. 2018,
  arXiv:1606.00915, §4.2)
- warmup-stable-decay: Hu et al. 2024, arXiv:2404.06395, §4.1; falls in a line or as 1 − √x (Hägele et al. 2024,
  arXiv:2405.18392, §3)
- inverse square root: Vaswani et al. 2017, arXiv:1706.03762, eq. 3
- one cycle: Smith & Topin 2017, arXiv:1708.07120, with half cosines as in torch; rates only, no momentum
"""

from __future__ import annotations

import math

from seedbed.optim.config import ScheduleConfig


def rate_multiple(config: ScheduleConfig, step: int, steps: int) -> float:
    """What the peak rates are multiplied with at `step` of `steps`, counted from 0. In (0, 1]."""
    config = config.resolve()
    warmup = round(config.warmup * steps)
    if step < warmup:
        risen = (step + 1) / (warmup + 1)
        return config.begin + (1 - config.begin) * _wave(risen) if config.name == "one_cycle" else risen
    if config.name == "constant":
        return 1.0
    if config.name == "inverse_sqrt":
        return math.sqrt((warmup + 1) / (step + 1))
    left = (steps - step) / max(1, steps - warmup)
    if config.name == "warmup_stable_decay":
        decay = config.decay * steps
        left = min(1.0, (steps - step) / decay) if decay else 1.0
    return config.final + (1 - config.final) * _height(config, left)


def _height(config: ScheduleConfig, left: float) -> float:
    """How much of the way from the peak is still ahead when this share of the falling steps is left."""
    match config.name:
        case "cosine" | "one_cycle":
            return _wave(left)
        case "polynomial":
            return left**config.power
        case "warmup_stable_decay" if config.fall == "sqrt":
            return 1 - math.sqrt(1 - left)
        case _:
            return left


def _wave(share: float) -> float:
    """From 0 to 1 along half a cosine."""
    return 0.5 * (1 - math.cos(math.pi * share))
