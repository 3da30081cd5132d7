"""Linear layers whose weights lie as a processor reads them: for a model that answers and learns no more.

Each row's result has the same bits whatever rows stand beside it (`native/packed_linear.cpp`), in fp32 as in int8.

Shape suffixes: N rows, D inputs, O outputs, P panels, Q groups of four inputs.
"""

from __future__ import annotations

import ctypes

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seedbed.model.linears.int8 import Int8Linear
from seedbed.native.library import library

PANEL = 64
"""Outputs beside one another."""


class Packed(nn.Module):
    """x · weightᵀ + bias by a kernel."""

    kernel: str
    """Its function: of x, of `parts`, of where the result goes, and of sizes."""

    def __init__(self, out_features: int, in_features: int):
        super().__init__()
        self.out_features, self.in_features = out_features, in_features
        native = library("packed_linear")
        assert native is not None, "who packs looks first whether there are kernels"
        self.function = getattr(native, self.kernel)

    @property
    def parts(self) -> tuple[Tensor | None, ...]:
        """What the weight consists of, the bias last."""
        raise NotImplementedError  # fp32 and int8 have their own

    def forward(self, x_D: Tensor) -> Tensor:
        x_ND = x_D.reshape(-1, self.in_features).contiguous()
        out_NO = x_ND.new_empty(len(x_ND), self.out_features)
        sizes = map(ctypes.c_int64, (len(x_ND), self.in_features, self.out_features))
        self.function(*map(_address, (x_ND, *self.parts, out_NO)), *sizes, torch.get_num_threads())
        return out_NO.view(*x_D.shape[:-1], self.out_features)


class PackedLinear(Packed):
    """In fp32."""

    kernel = "fp32_linear"
    weight_PDO: Tensor
    bias_O: Tensor | None

    def __init__(self, weight_OD: Tensor, bias_O: Tensor | None = None):
        super().__init__(*weight_OD.shape)
        self.register_buffer("weight_PDO", in_panels(weight_OD.detach()).transpose(1, 2).contiguous())
        self.register_buffer("bias_O", None if bias_O is None else bias_O.detach().contiguous())

    @property
    def parts(self) -> tuple[Tensor | None, ...]:
        return self.weight_PDO, self.bias_O


class PackedInt8Linear(Packed):
    """What Int8Linear computes."""

    kernel = "int8_linear"
    weight_PQO4: Tensor
    scale_O: Tensor
    sum_O: Tensor
    bias_O: Tensor | None

    def __init__(self, layer: Int8Linear):
        super().__init__(*layer.weight_OD.shape)
        quads_POQ4 = in_panels(F.pad(layer.weight_OD, (0, -self.in_features % 4))).unflatten(-1, (-1, 4))
        self.register_buffer("weight_PQO4", quads_POQ4.transpose(1, 2).contiguous())
        self.register_buffer("scale_O", in_panels(layer.scale_O).flatten())
        self.register_buffer("sum_O", in_panels(layer.weight_OD.sum(1, dtype=torch.int32)).flatten())
        self.register_buffer("bias_O", layer.bias_O)

    @property
    def parts(self) -> tuple[Tensor | None, ...]:
        return self.weight_PQO4, self.scale_O, self.sum_O, self.bias_O


def in_panels(x_OD: Tensor) -> Tensor:
    """The first dimension in panels (P, 64, …), the last of them filled up with zeros."""
    missing = -len(x_OD) % PANEL
    padding = x_OD.new_zeros(missing, *x_OD.shape[1:])
    return torch.cat([x_OD, padding]).unflatten(0, (-1, PANEL))


def _address(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
