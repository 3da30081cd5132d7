"""GPTQ: each column of a weight is rounded in turn, and what is lost so is made good by those still to come (Frantar et
al. 2022, arXiv:2210.17323, algorithm 1).

It minimises Σ ‖(W − Ŵ)·x‖² over sample inputs x as far as can be done column by column; H = Σ x·xᵀ is all that it has
to know of them. The columns that the inputs use most come first ("act-order", the authors' later code), by scales that
are found before.

Shape suffixes: O outputs, D inputs, B inputs of a block.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seedbed.quantization.rounding import whole_numbers

DAMPING = 0.01
"""Share of the mean diagonal of H that is added to it (§4.3): inputs that never occur would make it singular."""
BLOCK = 128
"""Columns after whose rounding all later ones are moved at once: the same numbers, fewer passes over the weight."""


def gptq(weight_OD: Tensor, scale_OD: Tensor, second_DD: Tensor, lowest: int, highest: int) -> Tensor:
    """The whole numbers (O, D), fp64, that `scale_OD` turns into a weight near the given one on inputs whose second
    moments are `second_DD`. Computed in fp64."""
    order_D = second_DD.diagonal().argsort(descending=True, stable=True)
    back_D = order_D.argsort()
    weight_OD, scale_OD = weight_OD.double()[:, order_D], scale_OD.double()[:, order_D]
    upper_DD = _inverse_root(second_DD[order_D][:, order_D])
    whole_OD = torch.empty_like(weight_OD)
    for first in range(0, weight_OD.shape[1], BLOCK):
        block = slice(first, first + BLOCK)
        weight_OB, upper_BB = weight_OD[:, block], upper_DD[block, block]
        missed_OB = torch.empty_like(weight_OB)
        for column in range(weight_OB.shape[1]):
            place = first + column
            scale_O = scale_OD[:, place]
            whole_OD[:, place] = whole_numbers(weight_OB[:, column], scale_O, lowest, highest)
            lost_O = weight_OB[:, column] - whole_OD[:, place] * scale_O
            missed_OB[:, column] = lost_O / upper_BB[column, column]
            weight_OB[:, column + 1 :] -= missed_OB[:, column, None] * upper_BB[column, column + 1 :]
        weight_OD[:, block.stop :] -= missed_OB @ upper_DD[block, block.stop :]
    return whole_OD[:, back_D]


def _inverse_root(second_DD: Tensor) -> Tensor:
    """Upper triangular U with Uᵀ·U = H⁻¹ (§3.3, step 3), H damped. With no inputs at all, H is the identity."""
    second_DD = second_DD.double().clone()
    mean = second_DD.diagonal().mean().item()
    second_DD.diagonal().add_(DAMPING * mean if mean > 0 else 1.0)
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(second_DD)), upper=True)
