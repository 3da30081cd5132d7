"""FlexAttention: the mask is compiled into the kernel, and blocks of it that hide everything are left out.

Dong et al. 2024, arXiv:2412.05496. Time and memory follow what is visible, not the square of the length.

Shape suffixes: B batch, T query positions, S key positions, H query heads, G key/value heads, K head width.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from seedbed.model.attention_paths.path import Heads
from seedbed.model.masks import AttentionMask

NARROWEST = 16
"""Head that its kernels are made for."""


class FlexAttention:
    """Every mask; no dropout."""

    def __init__(self, mask: AttentionMask, heads: Heads):
        self.mask = mask
        self.slopes_H = None
        if mask.slopes_H is not None:
            exact = torch.float64 if heads.dtype is torch.float64 else torch.float32
            self.slopes_H = torch.tensor(mask.slopes_H, dtype=exact, device=mask.device)
        self.blocks = create_block_mask(
            lambda b, h, t, s: mask.sees(b, t, s),
            B=mask.rows if mask.differs_by_row else None,
            H=None,
            Q_LEN=mask.queries,
            KV_LEN=mask.keys,
            device=mask.device,
        )
        self.kernel = kernel(compiled=mask.device.type == "cuda")

    @staticmethod
    def obstacle(mask: AttentionMask, heads: Heads) -> str | None:
        if mask.device.type != "cuda":
            return "FlexAttention needs a GPU of CUDA or ROCm; on a CPU it has no backward pass"
        if heads.width < NARROWEST:
            return f"FlexAttention takes heads from {NARROWEST} on, not of {heads.width}"
        if heads.dropout:
            return "FlexAttention has no dropout"
        if mask.slots_BT is not None:
            return "FlexAttention would be compiled again for every length of a cache"
        return None

    def __call__(self, q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor) -> Tensor:
        score = None if self.slopes_H is None else self.add_bias
        return self.kernel(q_BHTK, k_BGSK, v_BGSK, score_mod=score, block_mask=self.blocks, enable_gqa=True)

    def add_bias(self, score: Tensor, b: Tensor, h: Tensor, t: Tensor, s: Tensor) -> Tensor:
        assert self.slopes_H is not None
        return score - self.slopes_H[h] * (s - self.mask.place(b, t)).abs()


@functools.cache
def kernel(*, compiled: bool) -> Any:
    """Computes tile by tile when compiled, else every score at once."""
    return torch.compile(flex_attention, dynamic=False) if compiled else flex_attention
