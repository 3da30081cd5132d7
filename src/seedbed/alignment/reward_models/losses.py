"""What scores cost: losses of reward models, as their papers have them.

Shape suffixes: S preferences, N steps.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def bradley_terry_loss(chosen_S: Tensor, rejected_S: Tensor, margin_S: Tensor | float = 0.0) -> Tensor:
    """−log σ(r_w − r_l − m): the better answer wins with probability σ of the difference (Bradley & Terry 1952;
    Stiennon et al. 2020, arXiv:2009.01325, §3.4), by a margin where people told one (Touvron et al. 2023,
    arXiv:2307.09288, eq. 2)."""
    return -F.logsigmoid(chosen_S - rejected_S - margin_S)


def ranking_loss(chosen_S: Tensor, rejected_S: Tensor, margin_S: Tensor | float) -> Tensor:
    """max(0, m − (r_w − r_l)): beyond the margin nothing more is learned (Herbrich et al. 2000)."""
    return F.relu(margin_S - (chosen_S - rejected_S))


def centring_term(chosen_S: Tensor, rejected_S: Tensor) -> Tensor:
    """(r_w + r_l)²: preferences leave open what a score is counted from; this says from nought (Eisenstein et al. 2023,
    arXiv:2312.09244, eq. 3)."""
    return (chosen_S + rejected_S).square()


def step_loss(score_N: Tensor, right_N: Tensor) -> Tensor:
    """Cross-entropy of a step's being right, which has probability σ(r) (Lightman et al. 2023, arXiv:2305.20050,
    §2.6)."""
    return F.binary_cross_entropy_with_logits(score_N, right_N, reduction="none")
