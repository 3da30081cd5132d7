"""Matrix products in 8-bit floating point (Micikevicius et al. 2022, arXiv:2209.05433).

Each tensor is scaled so that its largest number is the largest of its format: e4m3 for what a product reads forward,
e5m2, which has more range, for gradients. Results and weights stay wide.

Shape suffixes: N rows, D inputs, O outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from seedbed.model.linears.linear import Linear

MULTIPLE = 16
"""Both sizes of a matrix must be multiples of this."""


class Float8Linear(Linear):
    """A linear layer without bias whose three products, one forward and two backward, read fp8."""

    def forward(self, x_D: Tensor) -> Tensor:
        """In bf16."""
        return _Float8Product.apply(x_D.flatten(0, -2), self.weight).unflatten(0, x_D.shape[:-1])


def use_float8(model: nn.Module) -> None:
    """Makes every linear layer inside the blocks whose sizes allow it read fp8; the weights stay the same objects."""
    for module in model.get_submodule("blocks").modules():
        if type(module) is Linear and module.bias is None and not any(size % MULTIPLE for size in module.weight.shape):
            module.__class__ = Float8Linear


class _Float8Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_OD: Tensor) -> Tensor:
        ctx.save_for_backward(x_ND, weight_OD)
        return _product(x_ND, weight_OD.T, torch.float8_e4m3fn)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_NO: Tensor) -> tuple[Tensor, Tensor]:
        x_ND, weight_OD = ctx.saved_tensors
        x_gradient_ND = _product(gradient_NO, weight_OD, torch.float8_e5m2)
        weight_gradient_OD = _product(_padded(gradient_NO).T, _padded(x_ND), torch.float8_e5m2)
        return x_gradient_ND.to(x_ND.dtype), weight_gradient_OD.to(weight_OD.dtype)


def _product(left_NK: Tensor, right_KM: Tensor, left_format: torch.dtype) -> Tensor:
    """left @ right in bf16; the kernel wants rows of the left and columns of the right to lie together in memory."""
    left, left_scale = _narrow(left_NK, left_format)
    right, right_scale = _narrow(right_KM.T, torch.float8_e4m3fn)
    return torch._scaled_mm(left, right.T, scale_a=left_scale, scale_b=right_scale, out_dtype=torch.bfloat16)


def _narrow(matrix: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """In fp8, rows together in memory, and the scale that it is to be multiplied with."""
    scale = (matrix.abs().amax().float() / torch.finfo(kind).max).clamp(min=1e-12)
    return (matrix / scale).to(kind).contiguous(), scale


def _padded(matrix_ND: Tensor) -> Tensor:
    """With rows of nought up to a multiple that the kernel can sum over."""
    return nn.functional.pad(matrix_ND, (0, 0, 0, -len(matrix_ND) % MULTIPLE))
