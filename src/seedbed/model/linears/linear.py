"""Linear layers, multiplied by the fastest kernel there is.

For fp32 on a CPU, PyTorch multiplies by MKL. oneDNN, which comes with it, gives the same precision and is 1.2 to 1.5
times as fast from some millions of multiplications on (docs/experiments.md). The gradient of a weight stays with MKL:
oneDNN would have to copy both factors first.

Shape suffixes: N rows, D inputs, O outputs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from seedbed import onednn

WORTH = 2**23
"""Multiplications from which on oneDNN wins back the 15 µs that asking it costs."""


class Linear(nn.Linear):
    """x · weightᵀ + bias."""

    def forward(self, x_D: Tensor) -> Tensor:
        return linear(x_D, self.weight, self.bias)


def linear(x_D: Tensor, weight_OD: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """x · weightᵀ + bias over the last dimension of x. Differentiable once where oneDNN computes it."""
    if _is_for_onednn(x_D, weight_OD):
        return _Product.apply(x_D, weight_OD, bias_O)
    return F.linear(x_D, weight_OD, bias_O)


def _is_for_onednn(x_D: Tensor, weight_OD: Tensor) -> bool:
    return (
        onednn.AVAILABLE
        and x_D.device.type == "cpu"
        and x_D.dtype == weight_OD.dtype == torch.float32
        and x_D.numel() * len(weight_OD) >= WORTH
        and type(x_D) in (Tensor, nn.Parameter)  # no part of a matrix that lies on several processes
        and type(weight_OD) in (Tensor, nn.Parameter)
        and not torch.is_autocast_enabled("cpu")
    )


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_D: Tensor, weight_OD: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_D, weight_OD)
        return onednn.linear(x_D, weight_OD, bias_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_O: Tensor) -> tuple[Tensor | None, ...]:
        x_D, weight_OD = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        gradient_NO = gradient_O.reshape(-1, len(weight_OD))
        return (
            linear(gradient_O, weight_OD.T) if needs_x else None,
            gradient_NO.T @ x_D.reshape(-1, x_D.shape[-1]) if needs_weight else None,
            gradient_NO.sum(0) if needs_bias else None,
        )
