"""What each position does on its own: one hidden layer, plain or with a gate.

- plain: down(f(up(x))), f one of ReLU (Vaswani et al. 2017, arXiv:1706.03762, eq. 2), GELU in its tanh form (Hendrycks
  & Gimpel 2016, arXiv:1606.08415, §2; GPT-2's), ReLU² (So et al. 2021, arXiv:2109.08668, §4: Primer) and SiLU
- gated: down(f(gate(x)) · up(x)) (Shazeer 2020, arXiv:2002.05202, eq. 6), f SiLU in SwiGLU, GELU in GeGLU, ReLU in
  ReGLU

Shape suffixes: B batch, T positions, D model width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from seedbed.model.config import ModelConfig
from seedbed.model.lean import gated_silu
from seedbed.model.linears.linear import Linear
from seedbed.model.recipes import remade


def relu2(x: Tensor) -> Tensor:
    """max(x, 0)²"""
    return F.relu(x).square()


gelu = partial(F.gelu, approximate="tanh")

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": gelu, "relu": F.relu, "relu2": relu2, "silu": F.silu}

GATES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "swiglu": gated_silu,
    "geglu": lambda gate, up: gelu(gate) * up,
    "reglu": lambda gate, up: F.relu(gate) * up,
}


class FeedForward(nn.Module):
    """Two matrices with a nonlinearity between them."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.up = Linear(config.width, config.ff_width, bias=config.feedforward_bias)
        self.down = Linear(config.ff_width, config.width, bias=config.feedforward_bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(remade(self.activation, self.up(x_BTD)))


class GatedFeedForward(nn.Module):
    """Three matrices: one of them decides how much of another passes."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.pass_through = GATES[config.activation]
        self.gate = Linear(config.width, config.ff_width, bias=config.feedforward_bias)
        self.up = Linear(config.width, config.ff_width, bias=config.feedforward_bias)
        self.down = Linear(config.ff_width, config.width, bias=config.feedforward_bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(remade(self.pass_through, self.gate(x_BTD), self.up(x_BTD)))


def build_feedforward(config: ModelConfig) -> FeedForward | GatedFeedForward:
    """The feed-forward of the config's activation."""
    return GatedFeedForward(config) if config.is_gated else FeedForward(config)
