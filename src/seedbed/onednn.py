"""Products of oneDNN, which PyTorch brings along and for fp32 asks only in special places."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

AVAILABLE = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability().startswith("AVX")


def linear(x_D: Tensor, weight_OD: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """x · weightᵀ + bias of fp32 tensors on a CPU, over the last dimension of x. No gradient flows through it."""
    return torch.ops.mkldnn._linear_pointwise(x_D, weight_OD, bias_O, "none", [], "")


if AVAILABLE:

    @register_flop_formula(torch.ops.mkldnn._linear_pointwise)
    def _operations(x_D: Any, weight_OD: Any, *others: Any, out_shape: Any = None, **keywords: Any) -> int:
        """For torch's counter of operations, which gives shapes and knows plain products only."""
        return 2 * prod(x_D) * weight_OD[0]
