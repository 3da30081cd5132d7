"""Feed-forwards by kernels: gate and up in one product, then the nonlinearity.

Shape suffixes: D width, F inner width, E twice that where there is a gate.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seedbed.model.packed.linears import Packed
from seedbed.native.library import function

KERNELS = {"silu": "silu", "swiglu": "silu", "gelu": "gelu", "geglu": "gelu"}
"""By the activation of a config. Those of ReLU need none: nothing is rounded."""


class PackedFeedForward(nn.Module):
    """What FeedForward and GatedFeedForward compute with one of those activations."""

    def __init__(self, up: Packed, down: nn.Module, activation: str):
        """`up`: of a gated one, gate and up one after the other."""
        super().__init__()
        self.up, self.down = up, down
        self.is_gated = activation.endswith("glu")
        self.function = function("activations", KERNELS[activation], "pppiiit")

    def place(self, layer: str) -> tuple[str, int]:
        """Which of ours computes a plain one's layer, and from which of its outputs on."""
        if layer == "down":
            return "down", 0
        return "up", self.up.out_features // 2 if self.is_gated and layer == "up" else 0

    def forward(self, x_D: Tensor) -> Tensor:
        up_E = self.up(x_D)
        stride = up_E.shape[-1]
        width = stride // 2 if self.is_gated else stride
        out_F = up_E.new_empty(*up_E.shape[:-1], width)
        second = up_E.data_ptr() + 4 * width if self.is_gated else None
        sizes = (up_E.numel() // stride, width, stride)
        self.function(up_E.data_ptr(), second, out_F.data_ptr(), *sizes, torch.get_num_threads())
        return self.down(out_F)
