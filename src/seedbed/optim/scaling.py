"""How batch, rates and decay follow from a model's size and the tokens that it learns from. No torch here.

N parameters that every token is multiplied with (blocks and head), D tokens of the run, B tokens of a step, S = D/B:

- D = 20·N: Hoffmann et al. 2022, arXiv:2203.15556, §3
- B = 62.7·D^0.383: Bergsma et al. 2025, arXiv:2505.13738, fig. 1 (0.0306·D^0.383 sequences of 2,048 tokens)
- rates ∝ √B: Malladi et al. 2022, arXiv:2205.10287; and ∝ D^-0.32: Bjorck et al. 2024, arXiv:2409.19913, §4
- rates ∝ 1/width of matrices that AdamW moves: Yang et al. 2022, arXiv:2203.03466, table 3; ∝ 1/√width of embedding
  and head beside Muon: nanochat (Karpathy 2025); alike at all widths: Muon's (Jordan 2024) and those of vectors
- decay λ = 1/(η·S·τ), τ = 1.084·(D/N)^-0.527: Wang & Aitchison 2024, arXiv:2405.13698, §3; Bergsma et al. 2025, fig. 1

Exponents are the papers'. Rates are anchored at our defaults for 8,192 tokens a step and 2·10⁶ in all, from where the
rules lead to the 0.02 that nanochat measured for Muon at 524,288 tokens a step and 1.3·10⁹ in all.
"""

from __future__ import annotations

import math

TOKENS_PER_PARAMETER = 20.0

BATCH_FACTOR, BATCH_POWER = 0.0306 * 2048, 0.383

ANCHOR_WIDTH, ANCHOR_BATCH, ANCHOR_TOKENS = 256, 8192, 2e6
"""Where the rates of `OptimizerConfig` hold as they stand."""

HORIZON_POWER = -0.32

TIMESCALE_FACTOR, TIMESCALE_POWER = 1.084, -0.527


def batch_tokens(tokens: float) -> float:
    """Tokens of a step of a run over `tokens` tokens."""
    return BATCH_FACTOR * tokens**BATCH_POWER


def batch_tokens_for(steps: int) -> float:
    """Tokens of a step of a run of so many steps: the batch B that is right for B·steps tokens."""
    return (BATCH_FACTOR * steps**BATCH_POWER) ** (1 / (1 - BATCH_POWER))


def rate_factor(batch: float, tokens: float) -> float:
    """What rates are multiplied with for a batch of so many tokens and a run of so many."""
    return math.sqrt(batch / ANCHOR_BATCH) * (tokens / ANCHOR_TOKENS) ** HORIZON_POWER


def width_factor(width: int, power: float) -> float:
    """What a rate that goes with a power of the width is multiplied with."""
    return (width / ANCHOR_WIDTH) ** power


def weight_decay(rate: float, steps: float, tokens_per_parameter: float) -> float:
    """Decoupled decay that lets weights remember the share τ of the run, at this peak rate."""
    timescale = TIMESCALE_FACTOR * tokens_per_parameter**TIMESCALE_POWER
    return 1 / (rate * steps * timescale)
