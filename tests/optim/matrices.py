"""Matrices to try optimizers on."""

from __future__ import annotations

import torch
from torch import Tensor


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_values(rows: int, columns: int, values: Tensor, seed: int = 0) -> Tensor:
    """A matrix with these singular values, as many as its smaller side."""
    u, _, vt = torch.linalg.svd(draw(rows, columns, seed=seed), full_matrices=False)
    return u @ torch.diag(values.to(u.dtype)) @ vt
