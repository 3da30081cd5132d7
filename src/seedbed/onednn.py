"""Products of oneDNN, which PyTorch brings along and for fp32 asks only in special places."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

AVAILABLE = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability().startswith("AVX")

# An operator of its own: torch's compiler takes PyTorch's for one whose weight never changes.
torch.library.define("seedbed::linear", "(Tensor x, Tensor weight, Tensor? bias) -> Tensor")


def linear(x_D: Tensor, weight_OD: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """x · weightᵀ + bias of fp32 tensors on a CPU, over the last dimension of x. No gradient flows through it."""
    return torch.ops.seedbed.linear(x_D, weight_OD, bias_O)


@torch.library.impl("seedbed::linear", "CPU")
def _compute(x_D: Tensor, weight_OD: Tensor, bias_O: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x_D, weight_OD, bias_O, "none", [], "")


@torch.library.register_fake("seedbed::linear")
def _shape(x_D: Tensor, weight_OD: Tensor, bias_O: Tensor | None) -> Tensor:
    return x_D.new_empty((*x_D.shape[:-1], len(weight_OD)))


@register_flop_formula(torch.ops.seedbed.linear)
def _operations(x_D: Any, weight_OD: Any, *others: Any, out_shape: Any = None, **keywords: Any) -> int:
    """For torch's counter of operations, which gives shapes and knows plain products only."""
    return 2 * prod(x_D) * weight_OD[0]
