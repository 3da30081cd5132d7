"""Scales, and whole numbers by them: the nearest ones.

Shape suffixes: O outputs, D inputs, G groups of inputs, S inputs of a group. What is said of O holds for any dimensions
before D.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seedbed.errors import DataError
from seedbed.model.linears.int4 import HIGHEST, LOWEST, groups

SHARES = torch.linspace(0.6, 1.15, 23)
"""Of the scale with which the largest number of a group becomes −8: below 1 it is cut off, above 1 it stays inside."""
LARGEST_SCALE = torch.finfo(torch.float16).max


def whole_numbers(weight_OD: Tensor, scale_OD: Tensor, lowest: int, highest: int) -> Tensor:
    """The nearest to weight ÷ scale, of the dtype of the weight. A scale of nought gives nought."""
    return (weight_OD / torch.where(scale_OD == 0, 1, scale_OD)).round().clamp(lowest, highest)


def int4_scales(weight_OD: Tensor, group: int, importance_D: Tensor | None = None) -> Tensor:
    """fp16 (O, G): of several for each group the one with the least Σ importance · (weight − rounded)².

    They are negative where a group's largest number is positive: then it becomes −8, and not 7. Larger than the largest
    number divided by eight, none is cut off; smaller, the many small ones are told apart better (Lin et al. 2023,
    arXiv:2306.00978, §4: clipping). DataError for weights beyond what half precision holds.
    """
    width = weight_OD.shape[-1]
    if float(weight_OD.abs().amax()) > LARGEST_SCALE:
        raise DataError(f"a weight is {float(weight_OD.abs().amax()):.2g}, too large for scales in half precision")
    grouped_OGS = _grouped(weight_OD.float(), group)
    weights_GS = torch.ones(width) if importance_D is None else importance_D.float()
    importance_GS = _grouped(weights_GS.to(weight_OD.device), group)
    most_OG1 = grouped_OGS.gather(-1, grouped_OGS.abs().argmax(-1, keepdim=True))
    best_OG = torch.full((*weight_OD.shape[:-1], groups(width, group)), torch.inf, device=weight_OD.device)
    scale_OG = torch.zeros_like(best_OG)
    for share in SHARES.tolist():
        tried_OG1 = (share * most_OG1 / LOWEST).half().float()
        missed_OGS = grouped_OGS - tried_OG1 * whole_numbers(grouped_OGS, tried_OG1, LOWEST, HIGHEST)
        missed_OG = (importance_GS * missed_OGS.square()).sum(-1)
        scale_OG = torch.where(missed_OG < best_OG, tried_OG1[..., 0], scale_OG)
        best_OG = torch.minimum(missed_OG, best_OG)
    return scale_OG.half()


def _grouped(x_OD: Tensor, group: int) -> Tensor:
    """(O, G, S), the last group filled up with noughts."""
    return F.pad(x_OD, (0, -x_OD.shape[-1] % group)).unflatten(-1, (-1, group))
