"""In which numbers a step computes.

Weights, gradients and the optimizer stay in fp32 whatever the precision; what changes is what matrix products read
and write (Micikevicius et al. 2018, arXiv:1710.03740, §3.1). fp16 has so little range that small gradients vanish:
the loss is multiplied before the backward pass by a scale that follows what the gradients bear (§3.2).
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from seedbed.errors import ConfigError
from seedbed.model.linears.float8 import use_float8
from seedbed.model.linears.int8_products import use_int8_products
from seedbed.native.library import available
from seedbed.training.run_state import RunState

MASTER = torch.float32
"""What is trained, whatever a model is stored in: a bf16 weight is too coarse to take up a small step."""

FIRST_SCALE, LEAST_SCALE = 2.0**8, 2.0**-10
"""The loss is a sum, not a mean: at a scale of 1 a gradient is already as large as a batch has targets."""

GROW_AFTER = 2000
"""Steps without overflow until the scale is doubled."""

NARROW = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.bfloat16}
"""What autocast makes of a precision: under fp8, what is no product inside a block is in bf16."""


class Precision:
    """One precision on one device."""

    def __init__(self, wanted: str, device: torch.device):
        """ConfigError when the device has no such numbers. `wanted` as in `TrainConfig.precision`."""
        self.device = device
        self.name = choose_precision(wanted, device)
        self.scales = self.name == "fp16"

    def prepare(self, model: nn.Module) -> None:
        """Makes the products inside the blocks read fp8 or int8, if this is that precision."""
        if self.name == "fp8":
            use_float8(model)
        if self.name == "int8":
            use_int8_products(model)

    def compute(self) -> contextlib.AbstractContextManager[object]:
        """Around forward passes."""
        if self.name in ("fp32", "int8"):
            return contextlib.nullcontext()
        # Its cache of narrow weights is emptied on leaving, and so never outlives a step of the optimizer.
        return torch.autocast(self.device.type, NARROW[self.name])

    def backward(self, loss: Tensor, progress: RunState) -> None:
        (loss * self.scale(progress)).backward()

    def scale(self, progress: RunState) -> float:
        """What the gradients are larger by than they should be."""
        return (progress.loss_scale or FIRST_SCALE) if self.scales else 1.0

    def overflowed(self, progress: RunState, loss: float, norm: float) -> bool:
        """Whether a smaller scale may help: the loss is finite, the gradient is not, and the scale is not the least."""
        smaller = self.scales and self.scale(progress) > LEAST_SCALE
        return smaller and math.isfinite(loss) and not math.isfinite(norm)

    def adjusted(self, progress: RunState, *, overflowed: bool) -> RunState:
        """With the scale of the next step: half after an overflow, twice after many steps without."""
        if not self.scales:
            return progress
        if overflowed:
            return replace(progress, loss_scale=self.scale(progress) / 2, steps_at_scale=0)
        if progress.steps_at_scale + 1 >= GROW_AFTER:
            return replace(progress, loss_scale=self.scale(progress) * 2, steps_at_scale=0)
        return replace(progress, loss_scale=self.scale(progress), steps_at_scale=progress.steps_at_scale + 1)


def choose_precision(wanted: str, device: torch.device) -> str:
    """The precision called so on this device; ConfigError when it has none. auto: bf16 on a CUDA device that has it,
    else fp32."""
    cuda = device.type == "cuda"
    if wanted == "auto":
        return "bf16" if cuda and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if wanted == "fp8" and not (cuda and torch.cuda.get_device_capability(device) >= (8, 9)):
        raise ConfigError(
            f"precision fp8 needs an NVIDIA GPU of the Ada or Hopper generation or later; the device is {device}",
            "Take --train.precision auto.",
        )
    if wanted == "int8" and (device.type != "cpu" or not available("rounding")):
        raise ConfigError(
            f"precision int8 needs a CPU and a C++ compiler; the device is {device}",
            "Take --train.precision auto, or install g++.",
        )
    return wanted
