"""What is done to rewards before a policy learns from them.

Shape suffixes: C completions, T tokens or steps of an episode.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor


def clip(rewards_C: Tensor, size: float) -> Tensor:
    """None beyond ±size: no single answer decides a step."""
    return rewards_C.clamp(-size, size)


def scale(rewards_C: Tensor, mean: float, deviation: float) -> Tensor:
    """(r − mean)/deviation, of a reward model's scores by what its `result.json` tells of the validation data
    (val_score and val_score_deviation), so that models of other units can be taken for one another."""
    return (rewards_C - mean) / max(deviation, 1e-8)


def whiten(rewards_C: Tensor, mask_C: Tensor | None = None, *, shift: bool = True) -> Tensor:
    """Variance 1 over a batch, and mean 0 unless `shift` is off; where the mask is false, nothing is counted and nought
    is given. All alike: nought, or as they are without shift."""
    counted = torch.ones_like(rewards_C, dtype=torch.bool) if mask_C is None else mask_C.bool()
    number = counted.sum().clamp(min=1)
    mean = (rewards_C * counted).sum() / number
    variance = ((rewards_C - mean).square() * counted).sum() / number
    whitened_C = (rewards_C - mean) * (variance + 1e-8).rsqrt()
    return torch.where(counted, whitened_C if shift else whitened_C + mean, 0.0)


def length_penalty(lengths_C: Tensor, limit: int, buffer: int) -> Tensor:
    """What is added for long completions: nought up to limit − buffer tokens, from there down to −1 at the limit, and
    −1 beyond it (DAPO's soft overlong punishment: Yu et al. 2025, arXiv:2503.14476, eq. 13)."""
    return ((limit - buffer - lengths_C) / buffer).clamp(-1, 0)


def repetition_penalty(completions: Sequence[Sequence[Hashable]], n: int = 4) -> Tensor:
    """What is added (C) for saying the same again: minus the share of the runs of n tokens that stood earlier in the
    same completion. Nought for one of fewer than n tokens."""
    found = []
    for tokens in completions:
        runs = [tuple(tokens[place : place + n]) for place in range(len(tokens) - n + 1)]
        found.append(len(set(runs)) / len(runs) - 1 if runs else 0.0)
    return torch.tensor(found)


def potential_based(rewards_T: Tensor, potentials_T: Tensor, gamma: float = 1.0) -> Tensor:
    """r_t + γ·Φ(s_{t+1}) − Φ(s_t), where Φ after the end is nought: hints about how good a state is, of which no policy
    becomes better or worse than it was (Ng, Harada & Russell 1999, theorem 1). Along the last dimension."""
    following_T = torch.cat([potentials_T[..., 1:], torch.zeros_like(potentials_T[..., :1])], dim=-1)
    return rewards_T + gamma * following_T - potentials_T
