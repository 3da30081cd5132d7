"""What all matrices in few bits have in common: they can be made whole again, row by row, and lie in a folder in parts.

Shape suffixes: O outputs, D inputs. A stack of matrices (E, O, D) is stored as its rows are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from seedbed.model.linears.storage import Storage

Shape = tuple[int, ...]


class Matrix(nn.Module):
    """Of a shape that is known; its buffers are no part of a state dict, since a folder names them otherwise."""

    def __init__(self, shape: Shape, storage: Storage):
        super().__init__()
        self.shape, self.storage = shape, storage

    def dense(self) -> Tensor:
        """The matrix itself, fp32."""
        raise NotImplementedError  # each kind has its own

    def rows(self, numbers: Tensor) -> Tensor:
        """Some rows (…, D) of it, fp32, by their numbers."""
        return self.dense()[numbers]

    def parts(self) -> dict[str, Tensor]:
        """What a folder holds of it, by what is added to the name of the weight."""
        raise NotImplementedError  # each kind has its own

    @staticmethod
    def promised(shape: Shape, storage: Storage) -> dict[str, tuple[torch.dtype, Shape]]:
        """Of which dtypes and shapes those parts are."""
        raise NotImplementedError  # each kind has its own

    @classmethod
    def of_parts(cls, parts: Mapping[str, Tensor], shape: Shape, storage: Storage) -> Self:
        """The matrix whose parts these are, as promised. ValueError when they contradict one another."""
        raise NotImplementedError  # each kind has its own
