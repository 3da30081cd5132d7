"""Linear layers whose weights lie as a processor reads them.

Each row's result has the same bits whatever rows stand beside it (`native/packed_linear.cpp`), in fp32 as in int8.

Shape suffixes: N rows, D inputs, O outputs, P panels, Q groups of four inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seedbed.model.linears.int8 import Int8Linear
from seedbed.model.linears.layers import StoredLinear
from seedbed.native.library import function

PANEL = 64
"""Outputs beside one another."""


class Packed(nn.Module):
    """x · weightᵀ + bias by a kernel."""

    def __init__(self, out_features: int, in_features: int):
        super().__init__()
        self.out_features, self.in_features = out_features, in_features

    def forward(self, x_D: Tensor) -> Tensor:
        x_ND = x_D.reshape(-1, self.in_features).contiguous()
        out_NO = x_ND.new_empty(len(x_ND), self.out_features)
        self.multiply(x_ND, out_NO)
        return out_NO.view(*x_D.shape[:-1], self.out_features)

    def multiply(self, x_ND: Tensor, out_NO: Tensor) -> None:
        """Writes the product."""
        raise NotImplementedError  # fp32 and int8 have their own


class PackedLinear(Packed):
    """In fp32."""

    weight_PDO: Tensor
    bias_O: Tensor | None

    def __init__(self, weight_OD: Tensor, bias_O: Tensor | None = None):
        super().__init__(*weight_OD.shape)
        self.register_buffer("weight_PDO", in_panels(weight_OD.detach()).transpose(1, 2).contiguous())
        self.register_buffer("bias_O", None if bias_O is None else bias_O.detach().contiguous())
        self.function = function("packed_linear", "fp32_linear", "ppppiiit")

    def multiply(self, x_ND: Tensor, out_NO: Tensor) -> None:
        parts = (x_ND.data_ptr(), self.weight_PDO.data_ptr(), address(self.bias_O), out_NO.data_ptr())
        self.function(*parts, len(x_ND), self.in_features, self.out_features, torch.get_num_threads())


class PackedInt8Linear(Packed):
    """What Int8Linear computes."""

    weight_PQO4: Tensor
    scale_O: Tensor
    sum_O: Tensor
    bias_O: Tensor | None

    def __init__(self, weight_OD: Tensor, scale_O: Tensor, bias_O: Tensor | None = None):
        super().__init__(*weight_OD.shape)
        quads_POQ4 = in_panels(F.pad(weight_OD, (0, -self.in_features % 4))).unflatten(-1, (-1, 4))
        self.register_buffer("weight_PQO4", quads_POQ4.transpose(1, 2).contiguous())
        self.register_buffer("scale_O", in_panels(scale_O).flatten())
        self.register_buffer("sum_O", in_panels(weight_OD.sum(1, dtype=torch.int32)).flatten())
        self.register_buffer("bias_O", bias_O)
        self.function = function("packed_linear", "int8_linear", "ppppppiiit")

    def multiply(self, x_ND: Tensor, out_NO: Tensor) -> None:
        weight = (self.weight_PQO4.data_ptr(), self.scale_O.data_ptr(), self.sum_O.data_ptr(), address(self.bias_O))
        sizes = (len(x_ND), self.in_features, self.out_features)
        self.function(x_ND.data_ptr(), *weight, out_NO.data_ptr(), *sizes, torch.get_num_threads())


def packed(*layers: nn.Module) -> Packed | None:
    """One layer whose outputs are those of the layers, one after the other, which read the same; None when they are of
    different kinds, or of one that has no kernel."""
    plain = [layer for layer in layers if isinstance(layer, nn.Linear)]
    if len(plain) == len(layers):
        return PackedLinear(_joined(plain, "weight"), _joined(plain, "bias"))
    stored = [layer for layer in layers if isinstance(layer, StoredLinear)]
    if len(stored) == len(layers):  # made whole: no kernel reads fewer bits
        return PackedLinear(_joined(stored, "weight"), _joined(stored, "bias_O"))
    whole = [layer for layer in layers if isinstance(layer, Int8Linear)]
    if len(whole) == len(layers):
        weight_OD, scale_O = (_joined(whole, part) for part in ("weight_OD", "scale_O"))
        return PackedInt8Linear(weight_OD, scale_O, _joined(whole, "bias_O"))
    return None


def _joined(layers: Sequence[nn.Module], part: str) -> Any:
    """A part of all layers, one after the other; None where they have none."""
    parts = [getattr(layer, part) for layer in layers]
    return None if parts[0] is None else torch.cat(parts)


def in_panels(x_OD: Tensor) -> Tensor:
    """The first dimension in panels (P, 64, …), the last of them filled up with zeros."""
    missing = -len(x_OD) % PANEL
    padding = x_OD.new_zeros(missing, *x_OD.shape[1:])
    return torch.cat([x_OD, padding]).unflatten(0, (-1, PANEL))


def address(tensor: Tensor | None) -> int | None:
    """Where a tensor begins."""
    return None if tensor is None else tensor.data_ptr()
