"""Gated feed-forward, SwiGLU (Shazeer 2020, arXiv:2002.05202, eq. 6): down(silu(gate(x)) · up(x)).

Shape suffixes: B batch, T positions, D model width.
"""

from __future__ import annotations

from torch import Tensor, nn

from seedbed.model.config import ModelConfig
from seedbed.model.lean import gated_silu


class FeedForward(nn.Module):
    """What each position does on its own."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate = nn.Linear(config.width, config.ff_width, bias=False)
        self.up = nn.Linear(config.width, config.ff_width, bias=False)
        self.down = nn.Linear(config.ff_width, config.width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(gated_silu(self.gate(x_BTD), self.up(x_BTD)))
