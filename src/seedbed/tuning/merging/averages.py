"""Merges of tensors as they are: weighted sums, of whole weights or of changes, and the way between two models.

Each takes the same tensor of every model, in the numbers that the arithmetic is done in.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

PARALLEL = 0.9995
"""Cosine above which slerp goes straight: the sines that it divides by are as good as nought. mergekit's value."""


def linear(tensors: Sequence[Tensor], weights: Sequence[float], normalize: bool) -> Tensor:
    """Σ wᵢθᵢ, divided by Σ wᵢ if `normalize` (of models, model soups: Wortsman et al. 2022, arXiv:2203.05482; of their
    changes, task arithmetic: Ilharco et al. 2022, arXiv:2212.04089)."""
    total = sum(
        (weight * tensor for weight, tensor in zip(weights, tensors, strict=True)), torch.zeros_like(tensors[0])
    )
    return total / sum(weights) if normalize else total


def slerp(first: Tensor, second: Tensor, t: float) -> Tensor:
    """sin((1−t)Ω)/sin Ω · θ₁ + sin(tΩ)/sin Ω · θ₂, Ω the angle between them as vectors (Shoemake 1985).

    Their lengths may differ. Tensors that are parallel, and one of length nought, are gone between straight.
    """
    cosine = (first.flatten() @ second.flatten()) / (first.norm() * second.norm())
    if not abs(cosine) <= PARALLEL:  # nor when it is no number
        return (1 - t) * first + t * second
    angle = torch.arccos(cosine)
    return (torch.sin((1 - t) * angle) * first + torch.sin(t * angle) * second) / torch.sin(angle)


def model_stock(base: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """t·θ̄ + (1−t)·θ₀ with t = N·cos / (1 + (N−1)·cos), cos the mean cosine between the changes of two models (Jang et
    al. 2024, arXiv:2403.19522, eq. 2 and §4.2).

    Where the changes agree, N of them are their mean; where they are at right angles or against one another, it is the
    base. A change of nought agrees with nothing.
    """
    changes = [(tensor - base).flatten() for tensor in tensors]
    units = torch.stack([change / change.norm().clamp_min(torch.finfo(base.dtype).tiny) for change in changes])
    count = len(changes)
    cosines = units @ units.T
    cosine = ((cosines.sum() - cosines.trace()) / (count * (count - 1))).clamp(0, 1)
    t = count * cosine / (1 + (count - 1) * cosine)
    return base + t * (torch.stack(list(tensors)).mean(0) - base)
