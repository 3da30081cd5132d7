"""Attention as the paper writes it: every score in memory, every dtype, every mask. The oracle of the other paths.

Vaswani et al. 2017, arXiv:1706.03762, §3.2.1.

Shape suffixes: B batch, T query positions, S key positions, H query heads, G key/value heads, K head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seedbed.model.attention_paths.path import Heads
from seedbed.model.masks import AttentionMask


class ReferenceAttention:
    """softmax(q·kᵀ/√K + bias)·v, step by step."""

    def __init__(self, mask: AttentionMask, heads: Heads):
        self.mask = mask
        self.dropout = heads.dropout

    @staticmethod
    def obstacle(mask: AttentionMask, heads: Heads) -> str | None:
        return None

    def __call__(self, q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor) -> Tensor:
        probabilities_BHTS = F.dropout(attention_probabilities(q_BHTK, k_BGSK, self.mask), self.dropout)
        return probabilities_BHTS @ for_each_query_head(v_BGSK, q_BHTK)


def attention_probabilities(q_BHTK: Tensor, k_BGSK: Tensor, mask: AttentionMask) -> Tensor:
    """How much each query reads of each key (B, H, T, S): sums to 1 over the keys, or to 0 where none is visible."""
    scores_BHTS = q_BHTK @ for_each_query_head(k_BGSK, q_BHTK).transpose(-1, -2) / q_BHTK.shape[-1] ** 0.5
    bias_BHTS = mask.bias_BHTS(q_BHTK.dtype)
    if bias_BHTS is not None:
        scores_BHTS = scores_BHTS + bias_BHTS
    hidden_B1TS = ~mask.visible_BTS()[:, None]
    # The lowest number and not −∞: a query that sees nothing would become NaN, in values and in gradients.
    lowest = torch.finfo(scores_BHTS.dtype).min
    return scores_BHTS.masked_fill(hidden_B1TS, lowest).softmax(-1).masked_fill(hidden_B1TS, 0.0)


def attention_entropy(q_BHTK: Tensor, k_BGSK: Tensor, mask: AttentionMask) -> Tensor:
    """How widely each query looks (B, H, T), in nats: 0 for one key alone, log n when it reads n keys alike."""
    return torch.special.entr(attention_probabilities(q_BHTK, k_BGSK, mask).float()).sum(-1)


def for_each_query_head(x_BGSK: Tensor, q_BHTK: Tensor) -> Tensor:
    """Keys or values of the head that each query head reads."""
    return x_BGSK.repeat_interleave(q_BHTK.shape[1] // x_BGSK.shape[1], dim=1)
