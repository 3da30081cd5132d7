"""The elementwise chains of a block, remembering only what they were given.

Written as plain operations, every step of a chain would be kept for the backward pass: of norms and gates together more
than of all matrix products. Here a chain keeps its inputs and computes the rest a second time, which
memory-bound steps hide (Chen et al. 2016, arXiv:1604.06174, at the grain of a formula).

Shape suffixes: D the width that is normalised, always last; F inner width of the feed-forward.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def rms_norm(x_D: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
    """x / rms(x) · weight (Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4), summed in fp32 at least."""
    return _RMSNorm.apply(x_D, weight_D, epsilon)


def gated_silu(gate_F: Tensor, up_F: Tensor) -> Tensor:
    """silu(gate) · up (Shazeer 2020, arXiv:2002.05202, eq. 6)."""
    return _GatedSiLU.apply(gate_F, up_F)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_D: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
        wide_D = _wide(x_D)
        scale = (
            torch.linalg.vector_norm(wide_D, dim=-1, keepdim=True).square_().div_(x_D.shape[-1]).add_(epsilon).rsqrt_()
        )
        ctx.save_for_backward(x_D, weight_D, scale)
        return (wide_D * scale).mul_(weight_D).to(torch.promote_types(x_D.dtype, weight_D.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_D: Tensor) -> tuple[Tensor, Tensor, None]:
        """With u = x·scale: ∂x = scale·(weight·g − u·mean(weight·g·u)), ∂weight = Σ g·u."""
        x_D, weight_D, scale = ctx.saved_tensors
        wide_D, gradient_D, weight_wide_D = _wide(x_D), _wide(gradient_D), _wide(weight_D)
        product_D = (wide_D * scale).mul_(gradient_D)
        weight_gradient_D = product_D.sum(dim=tuple(range(x_D.ndim - 1)))
        along = (product_D @ weight_wide_D)[..., None].mul_(scale).mul_(scale).div_(-x_D.shape[-1])
        x_gradient_D = product_D.copy_(gradient_D).mul_(weight_wide_D).mul_(scale).addcmul_(wide_D, along)
        return x_gradient_D.to(x_D.dtype), weight_gradient_D.to(weight_D.dtype), None


class _GatedSiLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_F: Tensor, up_F: Tensor) -> Tensor:
        ctx.save_for_backward(gate_F, up_F)
        return F.silu(gate_F).mul_(up_F)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_F: Tensor) -> tuple[Tensor, Tensor]:
        gate_F, up_F = ctx.saved_tensors
        gate_gradient_F = torch.ops.aten.silu_backward(gradient_F * up_F, gate_F)
        return gate_gradient_F, F.silu(gate_F).mul_(gradient_F)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
