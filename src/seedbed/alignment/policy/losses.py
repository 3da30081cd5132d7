"""What a policy minimises: the clipped objective, at tokens or whole answers, and an estimate of how far it has moved.

With r = π(token)/π_old(token), the advantage A and the band [1 − low, 1 + high] a token's loss is
−min(r·A, clip(r)·A) (Schulman et al. 2017, arXiv:1707.06347, eq. 7).

Shape suffixes: B rows, T positions. A number of a token stands at its own position, nought where nothing was said.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seedbed.alignment.policy.choices import Estimator, Level, Normaliser


def ratios(logprobs_BT: Tensor, old_BT: Tensor, said_BT: Tensor, level: Level) -> Tensor:
    """π/π_old of each token that was said (B, T), by the level; 1 elsewhere."""
    moved_BT = torch.where(said_BT, logprobs_BT - old_BT, 0.0)
    if level == "token":
        return moved_BT.exp()
    mean_B1 = moved_BT.sum(1, keepdim=True) / said_BT.sum(1, keepdim=True).clamp(min=1)
    return torch.where(said_BT, mean_B1, 0.0).exp()


def clipped(ratios_BT: Tensor, advantages_BT: Tensor, low: float | None, high: float | None) -> tuple[Tensor, Tensor]:
    """The loss of each token, and where the band holds its gradient back. Without a band (None) there is no limit on
    that side."""
    bent_BT = ratios_BT.clamp(None if low is None else 1 - low, None if high is None else 1 + high)
    gain_BT, bent_gain_BT = ratios_BT * advantages_BT, bent_BT * advantages_BT
    return -torch.minimum(gain_BT, bent_gain_BT), bent_gain_BT < gain_BT


def divergence(logprobs_BT: Tensor, reference_BT: Tensor, ratios_BT: Tensor, estimator: Estimator) -> Tensor:
    """What is added to the loss of each token for KL(π ‖ π_ref): its gradient, in expectation over tokens of π_old, is
    that of the divergence.

    The gradient of k2 is that already, once its tokens are weighed by π/π_old. That of k3 is the one of KL(π_ref ‖ π),
    unless the ratio is differentiated with it (DeepSeek-AI 2025, arXiv:2512.02556, eq. 7).
    """
    away_BT = logprobs_BT - reference_BT
    if estimator == "k2":
        return ratios_BT.detach() * 0.5 * away_BT.square()
    assert estimator == "k3"  # k1 is no loss: its gradient is nought in expectation
    return ratios_BT * ((-away_BT).exp() - 1 + away_BT)


def weigh(said_BT: Tensor, normaliser: Normaliser, longest: int) -> Tensor:
    """What a token's loss counts (B, T): summed, and divided by `units` of the whole step, it is the loss."""
    if normaliser == "answer":
        return said_BT / said_BT.sum(1, keepdim=True).clamp(min=1)
    return said_BT.float() / (longest if normaliser == "longest" else 1)


def units(said_BT: Tensor, normaliser: Normaliser) -> int:
    """What the summed loss of these rows is divided by, with that of the others of the step."""
    return int(said_BT.sum()) if normaliser == "token" else len(said_BT)


def clipped_error(values_BT: Tensor, old_BT: Tensor, returns_BT: Tensor, band: float | None) -> tuple[Tensor, Tensor]:
    """Half the squared error of each value, or of the value held within `band` of the old one where that is larger; and
    where it is (Schulman et al. 2017; as in OpenAI's baselines)."""
    free_BT = (values_BT - returns_BT).square()
    if band is None:
        return 0.5 * free_BT, torch.zeros_like(free_BT, dtype=torch.bool)
    held_BT = (old_BT + (values_BT - old_BT).clamp(-band, band) - returns_BT).square()
    return 0.5 * torch.maximum(free_BT, held_BT), held_BT > free_BT
