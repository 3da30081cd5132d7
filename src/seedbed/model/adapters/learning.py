"""Layers that learn a change beside weights that rest.

Shape suffixes: R rank, D inputs, O outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from seedbed.model.adapters.changes import Change, LowRank, Scaling, turned, whole
from seedbed.model.linears.linear import linear


@dataclass
class Switch:
    """What all adapted layers of a model look at."""

    on: bool = True
    """Off: they compute what their bases do."""


class LearningLayer(nn.Module):
    """A layer whose own weights rest, and what is learned beside them."""

    parameter_kind: ClassVar[str] = "adapter"
    """Its own rate, which `optim.groups` reads here."""

    def __init__(self, layer: nn.Module, switch: Switch):
        super().__init__()
        self.layer, self.switch = layer, switch

    def forward(self, x_D: Tensor) -> Tensor:
        return self.changed(x_D) if self.switch.on else self.layer(x_D)

    def changed(self, x_D: Tensor) -> Tensor:
        """What comes out when the change counts."""
        raise NotImplementedError  # each kind has its own

    @property
    def change(self) -> Change:
        """What has been learned so far; its tensors are the parameters themselves."""
        raise NotImplementedError  # each kind has its own


class LowRankLayer(LearningLayer):
    """x · Wᵀ + scale · dropout(x) · downᵀ · upᵀ (Hu et al. 2021, arXiv:2106.09685, eq. 3)."""

    def __init__(self, layer: nn.Module, switch: Switch, change: LowRank, dropout: float = 0.0, up_rate: float = 1.0):
        super().__init__(layer, switch)
        self.down = nn.Parameter(change.down_RD)
        self.up = nn.Parameter(change.up_OR)
        self.scale, self.dropout = change.scale, nn.Dropout(dropout)
        self.rate_multiples: Mapping[str, float] = {"up": up_rate}

    def changed(self, x_D: Tensor) -> Tensor:
        return self.layer(x_D) + self.scale * linear(linear(self.dropout(x_D), self.down), self.up)

    @property
    def change(self) -> LowRank:
        return LowRank(self.down.detach(), self.up.detach(), self.scale)


class DirectedLayer(LowRankLayer):
    """The same, after which each output has a length that is learned by itself: x · Vᵀ · m / |V| with V = W + scale ·
    up · down (DoRA: Liu et al. 2024, arXiv:2402.09353, eq. 5). |V| takes no gradient (§4.3)."""

    def __init__(self, layer: nn.Module, switch: Switch, change: LowRank, dropout: float = 0.0, up_rate: float = 1.0):
        super().__init__(layer, switch, change, dropout, up_rate)
        assert change.magnitude_O is not None
        self.magnitude = nn.Parameter(change.magnitude_O)

    def changed(self, x_D: Tensor) -> Tensor:
        weight_OD, bias_O = whole("", self.layer)
        with torch.no_grad():
            length_O = (weight_OD + self.scale * self.up @ self.down).norm(dim=1)
        turned_O = turned(self.magnitude, length_O)
        dropped_D = self.dropout(x_D)
        base_O = self.layer(dropped_D)
        plain_O = base_O if bias_O is None else base_O - bias_O
        out_O = base_O if dropped_D is x_D else self.layer(x_D)
        added_O = self.scale * linear(linear(dropped_D, self.down), self.up)
        return out_O + (turned_O - 1) * plain_O + turned_O * added_O

    @property
    def change(self) -> LowRank:
        return LowRank(self.down.detach(), self.up.detach(), self.scale, self.magnitude.detach())


class ScaledLayer(LearningLayer):
    """factors · (x · Wᵀ), or (factors · x) · Wᵀ (IA³: Liu et al. 2022, arXiv:2205.05638, §3.3)."""

    def __init__(self, layer: nn.Module, switch: Switch, change: Scaling):
        super().__init__(layer, switch)
        self.factors = nn.Parameter(change.factors)
        self.of_inputs = change.of_inputs

    def changed(self, x_D: Tensor) -> Tensor:
        return self.layer(x_D * self.factors) if self.of_inputs else self.layer(x_D) * self.factors

    @property
    def change(self) -> Scaling:
        return Scaling(self.factors.detach(), self.of_inputs)
