"""Small networks behind attention and feed-forward, which learn while the rest of the model rests (Houlsby et al. 2019,
arXiv:1902.00751, §2.1; behind the feed-forward alone: Pfeiffer et al. 2021, arXiv:2005.00247, §3).

Shape suffixes: D model width, C width of the bottleneck.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from seedbed.errors import ConfigError
from seedbed.model.adapters.adapter import Adapter, Files
from seedbed.model.adapters.config import BottleneckConfig
from seedbed.model.adapters.learning import Switch
from seedbed.model.adapters.writing import common
from seedbed.model.feedforward import ACTIVATIONS
from seedbed.model.linears.linear import linear
from seedbed.model.transformer import Transformer

PEFT_TYPE = "BOTTLENECK"
"""In the folder's config, whose form is peft's; peft itself has no such method."""


class Bottleneck(nn.Module):
    """h + f(h · downᵀ + b) · upᵀ + c of what a part of a block adds, after its norm, if it has one there."""

    parameter_kind = "adapter"

    def __init__(self, norm: nn.Module, switch: Switch, activation: str, width: int, bottleneck: int):
        super().__init__()
        self.norm, self.switch, self.activation = norm, switch, ACTIVATIONS[activation]
        self.down = nn.Parameter(torch.empty(bottleneck, width))
        self.down_bias = nn.Parameter(torch.zeros(bottleneck))
        self.up = nn.Parameter(torch.zeros(width, bottleneck))
        self.up_bias = nn.Parameter(torch.zeros(width))

    def forward(self, x_D: Tensor) -> Tensor:
        h_D: Tensor = self.norm(x_D)
        if not self.switch.on:
            return h_D
        return h_D + linear(self.activation(linear(h_D, self.down, self.down_bias)), self.up, self.up_bias)


class BottleneckAdapter(Adapter):
    """Of all blocks."""

    method = "adapter"

    def __init__(self, config: BottleneckConfig, base: Path, seed: int = 0):
        super().__init__(base, seed)
        self.config = config

    def fit(self, model: Transformer, chance: torch.Generator) -> None:
        config, width = self.config, model.config.width
        if config.width > width:
            raise ConfigError(f"bottleneck.width is {config.width}, wider than the model, {width:,}", "Give less.")
        for block in model.blocks:
            for place in (
                ("attention_exit_norm", "feedforward_exit_norm") if config.both else ("feedforward_exit_norm",)
            ):
                made = Bottleneck(block.get_submodule(place), self.switch, config.activation, width, config.width)
                nn.init.kaiming_uniform_(made.down, a=5**0.5, generator=chance)
                setattr(block, place, made.to(model.device))

    def files(self, model: Transformer) -> Files:
        config = self.config
        values = common(PEFT_TYPE, self.base) | asdict(config)
        return values, {name: weight.detach() for name, weight in learned(model).items()}


def learned(model: Transformer) -> dict[str, nn.Parameter]:
    """The weights of what a model wears, by name."""
    return {name: weight for name, weight in model.moving.items() if not name.startswith("score.")}
