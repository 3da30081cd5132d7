"""Rotary frequencies, and how they are stretched over a longer context.

- linear: position interpolation (Chen et al. 2023, arXiv:2306.15595, eq. 4): every frequency divided by the factor
- ntk: NTK-aware (bloc97 2023; Peng et al. 2023, arXiv:2309.00071, §3.1, eq. 16): the base raised, so that the slowest
  frequency is divided by the factor and the fastest stays
- yarn (Peng et al. 2023, §3.2–3.4): frequencies that turn fully in the original context stay, those that do not are
  divided, with a ramp between; attention is sharpened by a temperature
- llama3 (Llama 3.1: Grattafiori et al. 2024, arXiv:2407.21783, and its code): the same division with another ramp,
  without the temperature

Shape suffixes: P pairs of coordinates of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FAST, SLOW = 32, 1
"""Turns within the original context above which a frequency stays, and below which it is divided (YaRN's β and α)."""
LLAMA3_FAST, LLAMA3_SLOW = 4, 1
"""The same in every model of Llama 3."""


def rotary_frequencies(
    head_width: int, base: float, scaling: str = "none", *, factor: float = 1.0, original_context: int | None = None
) -> Tensor:
    """Radians a position (P), in fp64, on the CPU; of the pair i: base^(−2i/K) where there is no scaling.

    `original_context` is that before stretching, and needed by yarn and llama3.
    """
    if scaling == "ntk":
        base *= factor ** (head_width / (head_width - 2))
    pairs_P = torch.arange(0, head_width, 2, dtype=torch.float64, device="cpu")
    frequencies_P = base ** (-pairs_P / head_width)
    if scaling == "linear":
        return frequencies_P / factor
    if scaling == "yarn":
        assert original_context is not None
        divided_P = _ramp(head_width, base, original_context)
    elif scaling == "llama3":
        assert original_context is not None
        turns_P = original_context * frequencies_P / (2 * math.pi)
        divided_P = ((LLAMA3_FAST - turns_P) / (LLAMA3_FAST - LLAMA3_SLOW)).clamp(0, 1)
    else:
        return frequencies_P
    return frequencies_P * (1 - divided_P) + frequencies_P / factor * divided_P


def _ramp(head_width: int, base: float, context: int) -> Tensor:
    """How much of each pair (P) is divided: 0 for the fast ones, 1 for the slow ones. Its ends are whole pairs, as in
    the paper's code and in transformers."""

    def pair_that_turns(times: float) -> float:
        return head_width * math.log(context / (times * 2 * math.pi)) / (2 * math.log(base))

    first = max(math.floor(pair_that_turns(FAST)), 0)
    last = min(math.ceil(pair_that_turns(SLOW)), head_width - 1)
    pairs_P = torch.arange(head_width // 2, dtype=torch.float64, device="cpu")
    # A ramp without length is a step.
    return ((pairs_P - first) / (last - first or 0.001)).clamp(0, 1)


def yarn_temperature(factor: float) -> float:
    """What cosines and sines are multiplied by: 0.1·ln(factor) + 1 (eq. 22)."""
    return 0.1 * math.log(factor) + 1
