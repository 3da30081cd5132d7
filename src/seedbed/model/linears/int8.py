"""Linear layers in 8-bit whole numbers, weights and what they are multiplied with alike (W8A8).

Each row of the weight has a scale of its own, found once; each row of the input has one, found as it comes (Dettmers et
al. 2022, arXiv:2208.07339, §2.1: vector-wise). Products and sums of whole numbers are exact, so a row's result does not
depend on the rows beside it.

Shape suffixes: N rows, D inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from seedbed.model.linears.matrix import Matrix, Shape
from seedbed.model.linears.storage import Storage

LARGEST = 127
W8A8 = Storage(scheme="int8", activations="int8")


class Int8Matrix(Matrix):
    """Whole numbers, a scale for each row."""

    weight_OD: Tensor
    scale_O: Tensor

    def __init__(self, weight_OD: Tensor, scale_O: Tensor, storage: Storage):
        """`weight_OD` int8, of which each row times its scale is what it stands for."""
        super().__init__(tuple(weight_OD.shape), storage)
        self.register_buffer("weight_OD", weight_OD, persistent=False)
        self.register_buffer("scale_O", scale_O, persistent=False)

    @classmethod
    def of(cls, weight_OD: Tensor, storage: Storage) -> Int8Matrix:
        """The nearest one."""
        whole_OD, scale_O1 = quantise_rows(weight_OD)
        return cls(whole_OD, scale_O1[..., 0], storage)

    def dense(self) -> Tensor:
        return self.weight_OD * self.scale_O[..., None]

    def rows(self, numbers: Tensor) -> Tensor:
        return self.weight_OD[numbers] * self.scale_O[numbers][..., None]

    def parts(self) -> dict[str, Tensor]:
        return {"": self.weight_OD, "_scale": self.scale_O[..., None]}

    @staticmethod
    def promised(shape: Shape, storage: Storage) -> dict[str, tuple[torch.dtype, Shape]]:
        return {"": (torch.int8, shape), "_scale": (torch.float32, (*shape[:-1], 1))}

    @classmethod
    def of_parts(cls, parts: Mapping[str, Tensor], shape: Shape, storage: Storage) -> Int8Matrix:
        return cls(parts[""], parts["_scale"][..., 0], storage)


class Int8Linear(nn.Module):
    """x · weightᵀ + bias, of a weight that is a fourth as large."""

    weight_OD: Tensor
    scale_O: Tensor
    bias_O: Tensor | None

    def __init__(self, weight_OD: Tensor, scale_O: Tensor, bias_O: Tensor | None = None):
        """`weight_OD` int8, of which each row times its scale is what it stands for."""
        super().__init__()
        self.out_features, self.in_features = weight_OD.shape
        self.register_buffer("weight_OD", weight_OD.contiguous(), persistent=False)
        self.register_buffer("scale_O", scale_O.float(), persistent=False)
        self.register_buffer("bias_O", bias_O, persistent=False)

    @property
    def weight(self) -> Tensor:
        """What the numbers stand for, made anew each time."""
        return self.matrix.dense()

    @property
    def matrix(self) -> Int8Matrix:
        """What a folder holds of it."""
        return Int8Matrix(self.weight_OD, self.scale_O, W8A8)

    def forward(self, x_D: Tensor) -> Tensor:
        x_ND = x_D.reshape(-1, x_D.shape[-1])
        quantised_ND, scale_N1 = quantise_rows(x_ND.float())
        out_NO = torch._int_mm(quantised_ND, self.weight_OD.T) * (scale_N1 * self.scale_O)
        out_NO = (out_NO if self.bias_O is None else out_NO + self.bias_O).to(x_D.dtype)
        return out_NO.view(*x_D.shape[:-1], -1)


def quantise_rows(x_ND: Tensor) -> tuple[Tensor, Tensor]:
    """int8 (…, D), and what each row is to be multiplied with (…, 1), so that its largest number becomes ±127."""
    largest_N1 = x_ND.abs().amax(-1, keepdim=True).clamp(min=1e-30)
    # A number over a tensor would be its reciprocal times the number, which rounds twice; the kernel divides.
    factor_N1 = torch.full_like(largest_N1, LARGEST) / largest_N1
    return (x_ND * factor_N1).round().to(torch.int8), largest_N1 / LARGEST
