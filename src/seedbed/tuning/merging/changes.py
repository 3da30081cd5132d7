"""Merges of what models have learned since the base they share: task vectors δᵢ = θᵢ − θ₀ (Ilharco et al. 2022,
arXiv:2212.04089). Each is thinned, then they are added (`averages.linear`), or, by a vote on the sign, some of them.

Each takes the same tensor of every model, in the numbers that the arithmetic is done in.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def largest(change: Tensor, density: float) -> Tensor:
    """The change where its size is among the `density` · n largest, else nought (TIES, "trim": Yadav et al. 2023,
    arXiv:2306.01708, §4). All that are as large as the last of them are kept, as in the authors' code: of numbers that
    are all alike none is dropped for its place."""
    kept = max(1, int(density * change.numel()))
    size = change.abs()
    least = size.flatten().kthvalue(change.numel() - kept + 1).values
    return torch.where(size >= least, change, 0)


def random(change: Tensor, density: float, generator: torch.Generator) -> Tensor:
    """Each number with probability `density`, divided by it, else nought (DARE: Yu et al. 2023, arXiv:2311.03099, §3):
    the change that is expected stays as it was."""
    kept = torch.rand(change.shape, generator=generator) < density
    return torch.where(kept, change / density, 0)


def middle(change: Tensor, density: float, outliers: float) -> Tensor:
    """The change without its `outliers` · n largest numbers, and of the smallest so many that `density` · n are left
    (Model Breadcrumbs: Davari & Belilovsky 2023, arXiv:2312.06795, §3; β = 1 − density − outliers)."""
    count = change.numel()
    top = int(outliers * count)
    bottom = max(0, count - int(density * count) - top)
    order = change.abs().flatten().argsort(stable=True)
    kept = torch.zeros(count, dtype=torch.bool)
    kept[order[bottom : count - top]] = True
    return torch.where(kept.view_as(change), change, 0)


def elected(changes: Sequence[Tensor], weights: Sequence[float], normalize: bool) -> Tensor:
    """Number by number: Σ wᵢδᵢ over those wᵢδᵢ that have the sign of the whole sum, divided by their Σ wᵢ if
    `normalize` (TIES, "elect" and "disjoint merge"). Noughts, which were trimmed, have no sign and do not count."""
    weight_N1 = torch.tensor(weights, dtype=changes[0].dtype).view(-1, *[1] * changes[0].ndim)
    change_N = weight_N1 * torch.stack(list(changes))
    agrees_N = change_N.sign() == torch.where(change_N.sum(0) >= 0, 1, -1)
    total = (change_N * agrees_N).sum(0)
    if not normalize:
        return total
    share = (weight_N1 * agrees_N).sum(0)
    return total / torch.where(share.abs() < 1e-8, 1, share)
