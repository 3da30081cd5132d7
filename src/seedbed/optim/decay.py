"""Weight decay apart from the gradient: w ← w − rate·decay·w (Loshchilov & Hutter 2019, arXiv:1711.05101)."""

from __future__ import annotations

import torch
from torch import Tensor


def decay(weights: list[Tensor], updates: list[Tensor], amount: float, *, cautious: bool) -> None:
    """Every weight shrinks by this share of itself, before its update is subtracted.

    Cautious: only the weights that the update shrinks too, so that decay never works against it (Chen et al. 2025,
    arXiv:2510.12402, algorithm 1).
    """
    if not amount:
        return
    if not cautious:
        torch._foreach_mul_(weights, 1 - amount)
        return
    for weight, update in zip(weights, updates, strict=True):
        weight.sub_(weight * (weight * update >= 0), alpha=amount)
