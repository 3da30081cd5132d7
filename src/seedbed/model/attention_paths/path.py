"""What every way of computing attention is: made once for the layers of one kind, called by each of them.

Shape suffixes: B batch, T query positions, S key positions, H query heads, G key/value heads, K head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from seedbed.model.config import ModelConfig
from seedbed.model.masks import AttentionMask


@dataclass(frozen=True)
class Heads:
    """What attention is computed on: the same in every layer of a forward pass."""

    query: int
    """Query heads, H."""

    shared: int
    """Key/value heads, G; query head h reads head h // (H/G) (Ainslie et al. 2023, arXiv:2305.13245, §2.2)."""

    width: int
    """Of one head, K."""

    dtype: torch.dtype
    """Of queries, keys and values, autocast included."""

    dropout: float = 0.0
    """Share of the attention probabilities that are dropped; 0 outside training."""

    @classmethod
    def of(cls, config: ModelConfig, device: torch.device, dtype: torch.dtype, *, training: bool) -> Heads:
        """Those of a model whose weights lie there and are of that dtype."""
        if torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        return cls(config.heads, config.kv_heads, config.head_width, dtype, config.dropout if training else 0.0)

    @property
    def group(self) -> int:
        """Query heads that share a key/value head."""
        return self.query // self.shared


class Attend(Protocol):
    """softmax(q·kᵀ/√K + bias)·v over the visible keys; zero where none is visible."""

    mask: AttentionMask
    """What is visible, for who watches what is computed (`attention_entropy`)."""

    def __call__(self, q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, /) -> Tensor: ...


class Path(Protocol):
    """A way of computing attention: builds what its kernel needs for a mask."""

    def __call__(self, mask: AttentionMask, heads: Heads) -> Attend: ...

    def obstacle(self, mask: AttentionMask, heads: Heads) -> str | None:
        """Why this way cannot be taken; None: it can."""
