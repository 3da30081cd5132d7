"""How much better an answer, or a token, was than expected.

Shape suffixes: B answers, T positions. The answers to one prompt stand side by side.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seedbed.alignment.policy.choices import Baseline, Scale
from seedbed.alignment.rewards.shaping import whiten

LEAST_SPREAD = 1e-4
"""Added to a standard deviation, as in trl."""


def by_group(rewards_B: Tensor, group: int, baseline: Baseline, scale: Scale) -> Tensor:
    """The advantage of each answer (B), `group` of them to a prompt."""
    rewards_PG = rewards_B.view(-1, group)
    advantages_PG = rewards_PG - rewards_PG.mean(1, keepdim=True)
    if baseline == "others":  # r − (sum of the others)/(G − 1)
        advantages_PG = advantages_PG * group / (group - 1)
    if scale == "group":
        advantages_PG = advantages_PG / (rewards_PG.std(1, keepdim=True) + LEAST_SPREAD)
    if scale == "batch":
        advantages_PG = advantages_PG / (rewards_B.std() + LEAST_SPREAD)
    return advantages_PG.flatten()


def alike(rewards_B: Tensor, group: int) -> Tensor:
    """Whether all answers to a prompt have the same reward (prompts): nothing is to be learned from them."""
    rewards_PG = rewards_B.view(-1, group)
    return (rewards_PG == rewards_PG[:, :1]).all(1)


def generalised(
    rewards_BT: Tensor, values_BT: Tensor, after_B: Tensor, said_BT: Tensor, *, discount: float, decay: float
) -> Tensor:
    """Generalised advantage estimation (Schulman et al. 2015, arXiv:1506.02438, eq. 16) of each token (B, T).

    `values_BT`: what was expected before each token. `after_B`: what is expected after the last; 0 for an episode that
    ended, the value of the state in which one was cut off (Pardo et al. 2018, arXiv:1712.00378, §2.1).
    """
    advantages_BT = torch.zeros_like(rewards_BT)
    following_B, next_B = torch.zeros_like(after_B), after_B
    for t in reversed(range(rewards_BT.shape[1])):
        surprise_B = rewards_BT[:, t] + discount * next_B - values_BT[:, t]
        advantages_BT[:, t] = following_B = torch.where(
            said_BT[:, t], surprise_B + discount * decay * following_B, following_B
        )
        next_B = torch.where(said_BT[:, t], values_BT[:, t], next_B)
    return torch.where(said_BT, advantages_BT, 0.0)


def whitened(numbers_BT: Tensor, said_BT: Tensor) -> Tensor:
    """With mean 0 and variance 1 over what was said; 0 elsewhere."""
    return torch.zeros_like(numbers_BT).masked_scatter(said_BT, whiten(numbers_BT[said_BT]))
