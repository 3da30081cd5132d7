"""Matrix products of a training step in 8-bit whole numbers, the one forward and the two backward (Banner et al. 2018,
arXiv:1805.11046; Wortsman et al. 2023, arXiv:2304.13013, keep the gradient of the weight wide).

Each number of a product is a sum over rows or columns that each have a scale of their own. What is read forward is
rounded to the nearest; gradients are rounded by chance, so that they are right on average, by a hash of their place
and size: a step that is taken again is the same, and there is no state to save.

Shape suffixes: N rows, D inputs, O outputs, K what is summed over, M columns of a product.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from seedbed.model.linears.linear import WORTH, Linear
from seedbed.native.library import function

CHUNK = 512
"""Rows of a product that are scaled while the processor still has their sums."""
MOST_SUMMED = 2**17
"""Numbers of which a sum of products stays within 32 bits, whatever they are."""

# Operators of their own: torch's compiler looks into no kernel.
torch.library.define("seedbed::round_rows", "(Tensor x, bool stochastic) -> (Tensor, Tensor)")
torch.library.define("seedbed::round_columns", "(Tensor x, bool stochastic) -> (Tensor, Tensor)")
torch.library.define("seedbed::int8_product", "(Tensor a, Tensor a_scale, Tensor b, Tensor b_scale) -> Tensor")


class Int8ProductLinear(Linear):
    """A linear layer whose three products are of int8, where a gradient is wanted and the product is large enough. Its
    weight is of fp32 and learns as ever."""

    def forward(self, x_D: Tensor) -> Tensor:
        # A product of which a side is 1 is none that `_int_mm` gets right.
        if not torch.is_grad_enabled() or x_D.numel() * len(self.weight) < WORTH or 1 in self.weight.shape:
            return super().forward(x_D)
        out_NO = _Int8Product.apply(x_D.reshape(-1, x_D.shape[-1]), self.weight)
        return (out_NO if self.bias is None else out_NO + self.bias).unflatten(0, x_D.shape[:-1])


def use_int8_products(model: nn.Module) -> None:
    """Makes every linear layer inside the blocks multiply in int8; the weights stay the same objects."""
    for module in model.get_submodule("blocks").modules():
        if type(module) is Linear:
            module.__class__ = Int8ProductLinear


class _Int8Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_OD: Tensor) -> Tensor:
        ctx.save_for_backward(x_ND, weight_OD)
        x_scaled, weight_scaled = _rows(x_ND), _rows(weight_OD)
        return _product(*x_scaled, weight_scaled[0].T, weight_scaled[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_NO: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x_ND, weight_OD = ctx.saved_tensors
        needs_x, needs_weight = ctx.needs_input_grad
        gradient_NO = gradient_NO.contiguous()
        x_gradient_ND = weight_gradient_OD = None
        if needs_x:
            x_gradient_ND = _product(*_rows(gradient_NO, stochastic=True), *_columns(weight_OD))
        if needs_weight:
            rounded_NO, scale_O = _columns(gradient_NO, stochastic=True)
            weight_gradient_OD = _product(rounded_NO.T, scale_O, *_columns(x_ND))
        return x_gradient_ND, weight_gradient_OD


def _rows(x_ND: Tensor, *, stochastic: bool = False) -> tuple[Tensor, Tensor]:
    """int8 (N, D), and what each row is to be multiplied with (N)."""
    return torch.ops.seedbed.round_rows(x_ND.contiguous(), stochastic)


def _columns(x_ND: Tensor, *, stochastic: bool = False) -> tuple[Tensor, Tensor]:
    """int8 (N, D), and what each column is to be multiplied with (D)."""
    return torch.ops.seedbed.round_columns(x_ND.contiguous(), stochastic)


def _product(a_NK: Tensor, a_scale_N: Tensor, b_KM: Tensor, b_scale_M: Tensor) -> Tensor:
    """a · b of what the whole numbers stand for (N, M)."""
    return torch.ops.seedbed.int8_product(a_NK, a_scale_N, b_KM, b_scale_M)


@torch.library.impl("seedbed::round_rows", "CPU")
def _round_rows(x_ND: Tensor, stochastic: bool) -> tuple[Tensor, Tensor]:
    return _rounded("round_rows", x_ND, len(x_ND), stochastic)


@torch.library.impl("seedbed::round_columns", "CPU")
def _round_columns(x_ND: Tensor, stochastic: bool) -> tuple[Tensor, Tensor]:
    return _rounded("round_columns", x_ND, x_ND.shape[1], stochastic)


def _rounded(name: str, x_ND: Tensor, scales: int, stochastic: bool) -> tuple[Tensor, Tensor]:
    rounded_ND, scale = torch.empty_like(x_ND, dtype=torch.int8), x_ND.new_empty(scales)
    addresses = (x.data_ptr() for x in (x_ND, rounded_ND, scale))
    function("rounding", name, "pppiiit")(*addresses, *x_ND.shape, stochastic, torch.get_num_threads())
    return rounded_ND, scale


@torch.library.impl("seedbed::int8_product", "CPU")
def _multiply(a_NK: Tensor, a_scale_N: Tensor, b_KM: Tensor, b_scale_M: Tensor) -> Tensor:
    if a_NK.shape[1] > MOST_SUMMED:
        pieces = zip(a_NK.split(MOST_SUMMED, dim=1), b_KM.split(MOST_SUMMED), strict=True)
        return torch.stack([_product(a_NP, a_scale_N, b_PM, b_scale_M) for a_NP, b_PM in pieces]).sum(0)
    width = b_KM.shape[1]
    out_NM = a_scale_N.new_empty(len(a_NK), width)
    sums_RM = torch.empty(min(CHUNK, len(a_NK)), width, dtype=torch.int32)
    scaled = function("rounding", "scaled", "ppppiit")
    for first in range(0, len(a_NK), CHUNK):
        rows_RK = a_NK[first : first + CHUNK]
        torch._int_mm(rows_RK, b_KM, out=sums_RM[: len(rows_RK)])
        parts = (sums_RM, a_scale_N[first:], b_scale_M, out_NM[first:])
        scaled(*(part.data_ptr() for part in parts), len(rows_RK), width, torch.get_num_threads())
    return out_NM


@torch.library.register_fake("seedbed::round_rows")
def _shape_of_rows(x_ND: Tensor, stochastic: bool) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x_ND, dtype=torch.int8), x_ND.new_empty(len(x_ND))


@torch.library.register_fake("seedbed::round_columns")
def _shape_of_columns(x_ND: Tensor, stochastic: bool) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x_ND, dtype=torch.int8), x_ND.new_empty(x_ND.shape[1])


@torch.library.register_fake("seedbed::int8_product")
def _shape_of_product(a_NK: Tensor, a_scale_N: Tensor, b_KM: Tensor, b_scale_M: Tensor) -> Tensor:
    return a_scale_N.new_empty(len(a_NK), b_KM.shape[1])


@register_flop_formula(torch.ops.seedbed.int8_product)
def _operations(a_NK: Any, a_scale_N: Any, b_KM: Any, *others: Any, out_shape: Any = None, **keywords: Any) -> int:
    """For torch's counter of operations, which gives shapes and knows plain products only."""
    return 2 * a_NK[0] * a_NK[1] * b_KM[1]
