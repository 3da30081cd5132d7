"""Choosing the next token.

Every filter works on sorted or whole logits and sets what is excluded to −∞; the choice itself is by inverse transform
with one uniform number that is a pure function of (seed, position, sample), so a request does not depend on its
neighbours.

Shape suffixes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from seedbed.errors import DataError
from seedbed.inference.config import SamplingConfig
from seedbed.native.library import available, function


def choose(logits_BV: Tensor, config: SamplingConfig, numbers: Iterable[float]) -> Tensor:
    """The next token (B) of each row, by one number in [0, 1) for each; −1 where no token is possible, or a logit is
    NaN or ∞."""
    if logits_BV.device.type == "cpu" and logits_BV.dtype == torch.float32 and available():
        return _by_kernel(logits_BV, config, numbers)
    can_be_B = logits_BV.amax(-1).isfinite()  # NaN is the largest of all
    return torch.where(can_be_B, _by_pytorch(logits_BV, config, numbers), -1)


def _by_pytorch(logits_BV: Tensor, config: SamplingConfig, numbers: Iterable[float]) -> Tensor:
    if config.temperature == 0:
        return logits_BV.argmax(-1)
    exact_BV = exact(logits_BV)
    # The likeliest token's logit becomes 0, so that a low temperature makes the others −∞ and never itself NaN.
    scaled_BV = (exact_BV - exact_BV.amax(-1, keepdim=True)) / config.temperature
    uniform_B = torch.tensor(list(numbers), dtype=torch.float64)
    tokens_B = invert(restrict(scaled_BV, config).softmax(-1), uniform_B.to(scaled_BV.device))
    return tokens_B.to(logits_BV.device)


def _by_kernel(logits_BV: Tensor, config: SamplingConfig, numbers: Iterable[float]) -> Tensor:
    """The same in one pass, without sorting more of a row than is needed."""
    logits_BV = logits_BV if logits_BV.stride(-1) == 1 else logits_BV.contiguous()
    uniform_B = torch.tensor(list(numbers), dtype=torch.float64)
    tokens_B = torch.empty(len(logits_BV), dtype=torch.int64)
    function("sampling", "choose_tokens", "pppiiididddt")(
        *(x.data_ptr() for x in (logits_BV, uniform_B, tokens_B)),
        *(*logits_BV.shape, logits_BV.stride(0), config.temperature),
        *(config.top_k or 0, config.top_p or 1.0, config.min_p or 0.0, config.typical_p or 1.0),
        torch.get_num_threads(),
    )
    return tokens_B


def choose_each(logits_BV: Tensor, configs: Sequence[SamplingConfig], numbers: Sequence[float]) -> list[int]:
    """The same where every row has settings of its own: those that choose alike, but for their numbers, choose
    together. −1 where no token is possible."""
    alike = defaultdict(list)
    for row, config in enumerate(configs):
        alike[config.temperature, config.top_k, config.top_p, config.min_p, config.typical_p].append(row)
    tokens = [0] * len(configs)
    for rows in alike.values():
        some_BV = logits_BV if len(rows) == len(configs) else logits_BV[rows]
        chosen = choose(some_BV, configs[rows[0]], (numbers[row] for row in rows)).tolist()
        for row, token in zip(rows, chosen, strict=True):
            tokens[row] = token
    return tokens


def exact(logits_BV: Tensor) -> Tensor:
    """In fp64, in which the last token's share of a large vocabulary is not rounded away; MPS has none."""
    return (logits_BV.cpu() if logits_BV.device.type == "mps" else logits_BV).double()


def no_choice(logits_V: Tensor) -> DataError:
    """What to say where no token can be chosen."""
    if logits_V.isfinite().any() and not logits_V.isnan().any():
        return DataError("no token is possible any more: what the request forbids is everything", "Forbid less.")
    return DataError("the model's scores are not numbers: its weights are broken", "Use an earlier checkpoint.")


def restrict(logits_BV: Tensor, config: SamplingConfig) -> Tensor:
    """Top-k, then top-p (Holtzman et al. 2019, arXiv:1904.09751, §3.1), min-p (Nguyen et al. 2024, arXiv:2407.01082,
    §3) and typical-p (Meister et al. 2022, arXiv:2202.00666, §3): what is left out becomes −∞; some token always
    stays."""
    vocabulary = logits_BV.shape[-1]
    if config.top_k is not None and config.top_k < vocabulary:
        likeliest = logits_BV.topk(config.top_k)  # k of them, also when more are equally likely
        logits_BV = torch.full_like(logits_BV, -torch.inf).scatter(-1, likeliest.indices, likeliest.values)
    if config.top_p is not None and config.top_p < 1:
        logits_BV = first_that_hold(config.top_p, logits_BV, -logits_BV)
    if config.min_p is not None and config.min_p > 0:
        probabilities_BV = logits_BV.softmax(-1)
        too_small_BV = probabilities_BV < config.min_p * probabilities_BV.max(-1, keepdim=True).values
        logits_BV = logits_BV.masked_fill(too_small_BV, -torch.inf)
    if config.typical_p is not None and config.typical_p < 1:
        surprise_BV = -logits_BV.log_softmax(-1)
        expected_BV = torch.special.entr(logits_BV.softmax(-1)).sum(-1, keepdim=True)
        logits_BV = first_that_hold(config.typical_p, logits_BV, (surprise_BV - expected_BV).abs())
    return logits_BV


def likeliest(scores_BV: Tensor, count: int) -> list[tuple[int, int]]:
    """Row and token of the `count` largest scores of all rows, the largest first, of equal ones the first; fewer where
    others are −∞."""
    scores_N = scores_BV.flatten()
    least = scores_N.topk(min(count, len(scores_N))).values[-1]
    places_M = ((scores_N >= least) & (scores_N > -torch.inf)).nonzero().flatten()  # more, where some are equal
    order_M = scores_N[places_M].argsort(descending=True, stable=True)
    return [divmod(place, scores_BV.shape[-1]) for place in places_M[order_M][:count].tolist()]


def first_that_hold(mass: float, logits_BV: Tensor, rank_BV: Tensor) -> Tensor:
    """The fewest tokens, those of the lowest rank first, that together have this much probability; the others −∞."""
    order_BV = rank_BV.argsort(dim=-1, stable=True)
    probabilities_BV = logits_BV.softmax(-1).gather(-1, order_BV)
    # A token stays while those before it hold less.
    left_out_BV = probabilities_BV.cumsum(-1) - probabilities_BV >= mass
    left_out_BV[..., 0] = False
    return logits_BV.masked_fill(torch.zeros_like(left_out_BV).scatter(-1, order_BV, left_out_BV), -torch.inf)


def uniform(seed: int, position: int, sample: int = 0) -> float:
    """A number in [0, 1) from a counter, Philox (Salmon et al. 2011, SC '11): no state, any order."""
    return float(np.random.Generator(np.random.Philox(key=seed, counter=[position, sample, 0, 0])).random())


def invert(probabilities_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """The token at which the cumulative probability first exceeds `uniform_B`."""
    cumulative_BV = probabilities_BV.cumsum(-1)
    # Scaled by the last sum, which rounding leaves beside 1, so that no number falls behind the end.
    target_B1 = uniform_B[:, None] * cumulative_BV[:, -1:]
    return (
        torch.searchsorted(cumulative_BV, target_B1, right=True).squeeze(-1).clamp_(max=probabilities_BV.shape[-1] - 1)
    )
