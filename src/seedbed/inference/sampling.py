"""Choosing the next token.

Every filter works on sorted or whole logits and sets what is excluded to −∞; the choice itself is by inverse transform
with one uniform number that is a pure function of (seed, position), so a request does not depend on its neighbours.

Shape suffixes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from seedbed.errors import DataError
from seedbed.inference.config import SamplingConfig


def choose(
    logits_BV: Tensor, config: SamplingConfig, seeds: Sequence[int], positions: Sequence[int], seen_BV: Tensor | None
) -> Tensor:
    """The next token (B) of each row.

    `positions` are those of the tokens to be chosen, `seeds` take the place of that of `config`; `seen_BV` is True for
    every token that occurred in a row, None when no penalty asks for it. Raises DataError for logits that hold NaN or
    no token that is possible.
    """
    logits_BV = logits_BV.float()
    if not logits_BV.amax(-1).isfinite().all():
        raise DataError("the model's scores are not numbers: its weights are broken", "Use an earlier checkpoint.")
    if seen_BV is not None and config.repetition_penalty != 1.0:
        logits_BV = penalise(logits_BV, seen_BV, config.repetition_penalty)
    if config.temperature == 0:
        return logits_BV.argmax(-1)
    exact_BV = _exact(logits_BV)
    # The likeliest token's logit becomes 0, so that a low temperature makes the others −∞ and never itself NaN.
    scaled_BV = (exact_BV - exact_BV.amax(-1, keepdim=True)) / config.temperature
    numbers = [uniform(seed, position) for seed, position in zip(seeds, positions, strict=True)]
    uniform_B = torch.tensor(numbers, dtype=torch.float64)
    tokens_B = invert(restrict(scaled_BV, config).softmax(-1), uniform_B.to(scaled_BV.device))
    return tokens_B.to(logits_BV.device)


def _exact(logits_BV: Tensor) -> Tensor:
    """In float64; on the CPU where the device has none."""
    return (logits_BV.cpu() if logits_BV.device.type == "mps" else logits_BV).double()


def penalise(logits_BV: Tensor, seen_BV: Tensor, penalty: float) -> Tensor:
    """Makes what occurred already less likely (Keskar et al. 2019, arXiv:1909.05858, §4.1)."""
    penalised_BV = torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    return torch.where(seen_BV, penalised_BV, logits_BV)


def restrict(logits_BV: Tensor, config: SamplingConfig) -> Tensor:
    """Top-k, then top-p (Holtzman et al. 2019, arXiv:1904.09751, §3.1), then min-p (Nguyen et al. 2024,
    arXiv:2407.01082, §3): what is left out becomes −∞; the likeliest token always stays."""
    vocabulary = logits_BV.shape[-1]
    if config.top_k is not None and config.top_k < vocabulary:
        likeliest = logits_BV.topk(config.top_k)  # k of them, also when more are equally likely
        logits_BV = torch.full_like(logits_BV, -torch.inf).scatter(-1, likeliest.indices, likeliest.values)
    if config.top_p is not None and config.top_p < 1:
        sorted_BV, order_BV = logits_BV.sort(descending=True, stable=True)
        probabilities_BV = sorted_BV.softmax(-1)
        # A token stays while those before it hold less than top_p.
        left_out_BV = probabilities_BV.cumsum(-1) - probabilities_BV >= config.top_p
        left_out_BV[..., 0] = False
        logits_BV = logits_BV.masked_fill(torch.zeros_like(left_out_BV).scatter(-1, order_BV, left_out_BV), -torch.inf)
    if config.min_p is not None and config.min_p > 0:
        probabilities_BV = logits_BV.softmax(-1)
        too_small_BV = probabilities_BV < config.min_p * probabilities_BV.max(-1, keepdim=True).values
        logits_BV = logits_BV.masked_fill(too_small_BV, -torch.inf)
    return logits_BV


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) from a counter, Philox (Salmon et al. 2011, SC '11): no state, any order."""
    return float(np.random.Generator(np.random.Philox(key=seed, counter=[position, 0, 0, 0])).random())


def invert(probabilities_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """The token at which the cumulative probability first exceeds `uniform_B`."""
    cumulative_BV = probabilities_BV.cumsum(-1)
    # Scaled by the last sum, which rounding leaves beside 1, so that no number falls behind the end.
    target_B1 = uniform_B[:, None] * cumulative_BV[:, -1:]
    return (
        torch.searchsorted(cumulative_BV, target_B1, right=True).squeeze(-1).clamp_(max=probabilities_BV.shape[-1] - 1)
    )
