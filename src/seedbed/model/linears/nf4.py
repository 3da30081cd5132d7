"""Matrices in NormalFloat of 4 bits with double quantization (QLoRA: Dettmers et al. 2023, arXiv:2305.14314, §3).

Sixteen values stand where a normal distribution has as much to either side of each; blocks of 64 neighbours share the
largest number that they are divided by, and those numbers, less their mean, are rounded to 8 bits in turn. All bits are
those of bitsandbytes on a CPU, but not their names in the folder: it packs layers alone, and no tables.

Shape suffixes: M numbers of the matrix, row after row, K blocks of them, L blocks of those, C codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from seedbed.model.linears.matrix import Matrix, Shape
from seedbed.model.linears.storage import Storage

BLOCK, OUTER_BLOCK = 64, 256
VALUES = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""Appendix E of the paper."""
SMALLEST = 1e-38
"""A block of noughts is divided by this."""
STEPS = 65_535
"""Between −1 and 1 the numbers that are rounded to 8 bits are first rounded to these, as a table of all needs it."""


class NF4Matrix(Matrix):
    """Four bits for each number, eight for each block, and some for each block of blocks."""

    packed: Tensor
    most_K: Tensor
    outer_L: Tensor
    mean: Tensor

    def __init__(self, packed: Tensor, most_K: Tensor, outer_L: Tensor, mean: Tensor, shape: Shape, storage: Storage):
        """`packed` uint8, two numbers in each, the first in the higher bits; `most_K` uint8 codes of what blocks are
        multiplied with, less `mean` and divided by `outer_L`."""
        super().__init__(shape, storage)
        for name, part in (("packed", packed), ("most_K", most_K), ("outer_L", outer_L), ("mean", mean)):
            self.register_buffer(name, part, persistent=False)

    @classmethod
    def of(cls, weight: Tensor, storage: Storage) -> NF4Matrix:
        """The nearest one."""
        most_K, codes_M = _nearest(weight.float().flatten())
        pairs = F.pad(codes_M, (0, len(codes_M) % 2), value=VALUES.index(0.0)).unflatten(0, (-1, 2))
        mean = most_K.mean()
        outer_L, outer_codes_K = _eight_bits(most_K - mean)
        return cls(pairs[:, 0] << 4 | pairs[:, 1], outer_codes_K, outer_L, mean[None], tuple(weight.shape), storage)

    def dense(self) -> Tensor:
        values_C = torch.tensor(VALUES, device=self.packed.device)
        # Both numbers of a byte at once: little is held beside the matrix while it is made.
        pairs = torch.stack([values_C.repeat_interleave(16), values_C.repeat(16)], dim=1)
        values_M = pairs[self.packed.int()].flatten()[: prod(self.shape)]
        most_K = self._most()
        whole = len(values_M) // BLOCK * BLOCK
        values_M[:whole].view(-1, BLOCK).mul_(most_K[: whole // BLOCK, None])
        if whole < len(values_M):
            values_M[whole:].mul_(most_K[-1])
        return values_M.view(self.shape)

    def rows(self, numbers: Tensor) -> Tensor:
        width = self.shape[-1]
        return self._made(numbers[..., None] * width + torch.arange(width, device=numbers.device))

    def _made(self, places: Tensor) -> Tensor:
        """The numbers at some places in the order of the matrix."""
        pairs, blocks = self.packed[places // 2], places // BLOCK
        codes = torch.where(places % 2 == 0, pairs >> 4, pairs & 15)
        return torch.tensor(VALUES, device=places.device)[codes.int()] * self._most()[blocks]

    def _most(self) -> Tensor:
        """What blocks are multiplied with (K)."""
        outer_C = dynamic_values().to(self.most_K.device)
        return outer_C[self.most_K.int()] * self.outer_L.repeat_interleave(OUTER_BLOCK)[: len(self.most_K)] + self.mean

    def parts(self) -> dict[str, Tensor]:
        return {
            "_packed": self.packed,
            "_absmax": self.most_K,
            "_nested_absmax": self.outer_L,
            "_nested_offset": self.mean,
        }

    @staticmethod
    def promised(shape: Shape, storage: Storage) -> dict[str, tuple[torch.dtype, Shape]]:
        numbers = prod(shape)
        blocks = -(-numbers // BLOCK)
        return {
            "_packed": (torch.uint8, (-(-numbers // 2),)),
            "_absmax": (torch.uint8, (blocks,)),
            "_nested_absmax": (torch.float32, (-(-blocks // OUTER_BLOCK),)),
            "_nested_offset": (torch.float32, (1,)),
        }

    @classmethod
    def of_parts(cls, parts: Mapping[str, Tensor], shape: Shape, storage: Storage) -> NF4Matrix:
        nested = parts["_nested_absmax"], parts["_nested_offset"]
        return cls(parts["_packed"], parts["_absmax"], *nested, shape, storage)


def _nearest(weight_M: Tensor) -> tuple[Tensor, Tensor]:
    """The largest number of each block (K), and the code of each number (M), uint8."""
    whole = len(weight_M) // BLOCK * BLOCK
    blocks_KS = weight_M[:whole].view(-1, BLOCK)
    most_K = blocks_KS.abs().amax(1) if whole else blocks_KS.new_empty(0)
    scaled_M = (blocks_KS * (1 / most_K.clamp(min=SMALLEST))[:, None]).flatten()
    if whole < len(weight_M):  # a short block, which is divided, and not multiplied: the last bit is another
        rest = weight_M[whole:]
        most = rest.abs().amax().clamp(min=SMALLEST)
        most_K, scaled_M = torch.cat([most_K, most[None]]), torch.cat([scaled_M, rest / most])
    values_C = torch.tensor(VALUES, device=weight_M.device)
    return most_K, torch.bucketize(scaled_M.clamp(-1, 1), (values_C[1:] + values_C[:-1]) / 2).to(torch.uint8)


def _eight_bits(x_K: Tensor) -> tuple[Tensor, Tensor]:
    """The largest size in each block (L), and the nearest of 256 values for each number divided by it (K), uint8."""
    blocks = x_K.split(OUTER_BLOCK)
    most_L = torch.stack([block.abs().amax() for block in blocks])
    # Where all are nought, any code will do; theirs is the first.
    inverse_L = torch.where(most_L > 0, 1 / most_L, -torch.inf)
    scaled_K = torch.cat([block * inverse for block, inverse in zip(blocks, inverse_L, strict=True)]).nan_to_num(-1)
    step_K = ((scaled_K.clamp(-1, 1) + 1) * (STEPS / 2) + 0.5).floor()
    values_C = dynamic_values().to(x_K.device)
    return most_L, torch.bucketize(step_K / (STEPS / 2) - 1, (values_C[1:] + values_C[:-1]) / 2).to(torch.uint8)


def dynamic_values() -> Tensor:
    """The 256 values of the dynamic tree (Dettmers 2016, arXiv:1511.04561, §2.1), ascending: the nearer to nought, the
    fewer bits are left for the fraction."""
    values = [0.0, 1.0]
    for exponent in range(7):
        edges = torch.linspace(0.1, 1, 2**exponent + 1)
        means = 10.0 ** (exponent - 6) * (edges[:-1] + edges[1:]) / 2.0
        values += [*means.tolist(), *(-means).tolist()]
    return torch.tensor(sorted(values))
