"""What preferences cost: losses of log-probabilities, as their papers have them.

With p of the model, q of the reference, both summed over the tokens of an answer, an answer's implicit reward is
β·(log p − log q), and the margin that of the better answer less that of the worse (Rafailov et al. 2023,
arXiv:2305.18290, eq. 7).

Shape suffixes: S preferences or judgements.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sigmoid_loss(margin_S: Tensor) -> Tensor:
    """−log σ(m): DPO (ibid.)."""
    return -F.logsigmoid(margin_S)


def ipo_loss(margin_S: Tensor, beta: float) -> Tensor:
    """(m/β − 1/(2β))², where m/β is the margin of log-ratios (Azar et al. 2023, arXiv:2310.12036, eq. 17)."""
    return (margin_S / beta - 1 / (2 * beta)).square()


def hinge_loss(margin_S: Tensor) -> Tensor:
    """max(0, 1 − m) (Zhao et al. 2023, arXiv:2305.10425; Liu et al. 2023, arXiv:2309.06657, eq. 9)."""
    return F.relu(1 - margin_S)


def conservative_loss(margin_S: Tensor, flipped: float) -> Tensor:
    """−(1 − ε)·log σ(m) − ε·log σ(−m): a margin has a best size (Mitchell 2023, "A note on DPO with noisy
    preferences", eq. 3)."""
    return -(1 - flipped) * F.logsigmoid(margin_S) - flipped * F.logsigmoid(-margin_S)


def robust_loss(margin_S: Tensor, flipped: float) -> Tensor:
    """(−(1 − ε)·log σ(m) + ε·log σ(−m))/(1 − 2ε): on average over flips the loss of the true preferences (Chowdhury et
    al. 2024, arXiv:2403.00409, eq. 11)."""
    return (-(1 - flipped) * F.logsigmoid(margin_S) + flipped * F.logsigmoid(-margin_S)) / (1 - 2 * flipped)


def simpo_loss(margin_S: Tensor, target_margin: float) -> Tensor:
    """−log σ(m − γ), where rewards are β·log p divided by the answer's tokens, without a reference (Meng et al. 2024,
    arXiv:2405.14734, eq. 6)."""
    return -F.logsigmoid(margin_S - target_margin)


def odds_ratio_loss(chosen_S: Tensor, rejected_S: Tensor, beta: float) -> Tensor:
    """−log p_w − β·log σ(log odds_w − log odds_l), of log-probabilities divided by the answer's tokens, where
    odds = p/(1 − p) (Hong et al. 2024, arXiv:2403.07691, eqs. 6 and 7; their λ is β)."""
    log_odds_S = chosen_S - rejected_S - (_log_complement(chosen_S) - _log_complement(rejected_S))
    return -chosen_S - beta * F.logsigmoid(log_odds_S)


def _log_complement(log_p_S: Tensor) -> Tensor:
    """log(1 − p), near p = 1 too. An answer of p = 1 counts as one that is only just below."""
    return torch.log(-torch.expm1(log_p_S.clamp(max=-1e-7)))


def kto_loss(
    reward_S: Tensor, baseline_S: Tensor, wanted_S: Tensor, wanted_weight: float, unwanted_weight: float
) -> Tensor:
    """λ_D·(1 − σ(r − z)) of a wanted answer, λ_U·(1 − σ(z − r)) of another, where r is the implicit reward and
    z = β·max(0, KL) how far the model has gone from the reference (Ethayarajh et al. 2024, arXiv:2402.01306, eq. 8)."""
    gain_S = wanted_weight * (1 - torch.sigmoid(reward_S - baseline_S))
    loss_S = unwanted_weight * (1 - torch.sigmoid(baseline_S - reward_S))
    return torch.where(wanted_S, gain_S, loss_S)
