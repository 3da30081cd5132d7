"""Matrices in 4-bit whole numbers, of which a group of neighbouring inputs shares a scale.

Eight numbers, each plus 8, lie in one of 32 bits, the first in its lowest four: the layout of compressed-tensors'
`pack-quantized`, so that transformers reads them.

Shape suffixes: O outputs, D inputs, W words of eight inputs, G groups of inputs, the last of which may be short. What
is said of O holds for any dimensions before D.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from seedbed.model.linears.matrix import Matrix, Shape
from seedbed.model.linears.storage import Storage

LOWEST, HIGHEST = -8, 7
IN_WORD, BITS = 8, 4


class Int4Matrix(Matrix):
    """Whole numbers from −8 to 7, a scale in half precision for each group of a row."""

    packed_OW: Tensor
    scale_OG: Tensor

    def __init__(self, packed_OW: Tensor, scale_OG: Tensor, shape: Shape, storage: Storage):
        super().__init__(shape, storage)
        self.register_buffer("packed_OW", packed_OW, persistent=False)
        self.register_buffer("scale_OG", scale_OG, persistent=False)

    @classmethod
    def of(cls, whole_OD: Tensor, scale_OG: Tensor, storage: Storage) -> Int4Matrix:
        """Of whole numbers from −8 to 7 and scales."""
        return cls(packed(whole_OD), scale_OG.half(), tuple(whole_OD.shape), storage)

    def dense(self) -> Tensor:
        return self._made(self.packed_OW, self.scale_OG)

    def rows(self, numbers: Tensor) -> Tensor:
        return self._made(self.packed_OW[numbers], self.scale_OG[numbers])

    def _made(self, packed_OW: Tensor, scale_OG: Tensor) -> Tensor:
        assert self.storage.group is not None
        width = self.shape[-1]
        return unpacked(packed_OW, width) * spread(scale_OG.float(), self.storage.group, width)

    def parts(self) -> dict[str, Tensor]:
        return {"_packed": self.packed_OW, "_scale": self.scale_OG, "_shape": torch.tensor(self.shape)}

    @staticmethod
    def promised(shape: Shape, storage: Storage) -> dict[str, tuple[torch.dtype, Shape]]:
        assert storage.group is not None
        return {
            "_packed": (torch.int32, (*shape[:-1], -(-shape[-1] // IN_WORD))),
            "_scale": (torch.float16, (*shape[:-1], groups(shape[-1], storage.group))),
            "_shape": (torch.int64, (len(shape),)),
        }

    @classmethod
    def of_parts(cls, parts: Mapping[str, Tensor], shape: Shape, storage: Storage) -> Int4Matrix:
        if tuple(parts["_shape"].tolist()) != shape:
            raise ValueError(f"its shape is told as {parts['_shape'].tolist()}, it is {list(shape)}")
        return cls(parts["_packed"], parts["_scale"], shape, storage)


def packed(whole_OD: Tensor) -> Tensor:
    """Words (O, W), int32, of whole numbers from −8 to 7; what is missing in the last one is −8."""
    lifted_OD = (whole_OD.int() - LOWEST).contiguous()
    words = F.pad(lifted_OD, (0, -whole_OD.shape[-1] % IN_WORD)).unflatten(-1, (-1, IN_WORD))
    return (words << _places(words.device)).sum(-1, dtype=torch.int32)  # no bit stands in two of them


def unpacked(packed_OW: Tensor, width: int) -> Tensor:
    """The whole numbers (O, `width`), int32."""
    found = (packed_OW[..., None] >> _places(packed_OW.device)) & (2**BITS - 1)
    return found.flatten(-2)[..., :width] + LOWEST


def _places(device: torch.device) -> Tensor:
    return torch.arange(0, IN_WORD * BITS, BITS, dtype=torch.int32, device=device)


def groups(width: int, group: int) -> int:
    """Of how many groups a row is."""
    return -(-width // group)


def spread(scale_OG: Tensor, group: int, width: int) -> Tensor:
    """The scale of each input (O, `width`)."""
    return scale_OG.repeat_interleave(group, dim=-1)[..., :width]
