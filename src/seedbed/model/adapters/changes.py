"""What adapters make of the weight of a layer.

Shape suffixes: R rank, D inputs, O outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seedbed.errors import DataError
from seedbed.model.linears.layers import StoredLinear
from seedbed.model.linears.linear import Linear
from seedbed.model.transformer import Transformer


def turned(magnitude_O: Tensor, length_O: Tensor) -> Tensor:
    """What each row is multiplied with; 1 for one of nought, which has no direction, in a pruned model for example."""
    return torch.where(length_O > 0, magnitude_O / length_O.where(length_O > 0, 1), 1)


@dataclass(frozen=True)
class LowRank:
    """What is added to a layer's weight: scale · up · down (Hu et al. 2021, arXiv:2106.09685, eq. 3). With magnitudes,
    each row of the sum is then made as long as they say (DoRA: Liu et al. 2024, arXiv:2402.09353, eq. 5)."""

    down_RD: Tensor
    up_OR: Tensor
    scale: float
    magnitude_O: Tensor | None = None

    def weight(self, base_OD: Tensor) -> Tensor:
        """The weight with the change in it, computed in fp64."""
        changed_OD = base_OD.double() + self.scale * (self.up_OR.double() @ self.down_RD.double())
        if self.magnitude_O is not None:
            changed_OD *= turned(self.magnitude_O.double(), changed_OD.norm(dim=1))[:, None]
        return changed_OD

    def bias(self, base_O: Tensor) -> Tensor:
        """As it is."""
        return base_O


@dataclass(frozen=True)
class Scaling:
    """Each output, or each input, of a layer is multiplied with a number of its own (IA³: Liu et al. 2022,
    arXiv:2205.05638, §3.3)."""

    factors: Tensor
    of_inputs: bool

    def weight(self, base_OD: Tensor) -> Tensor:
        """The weight with the change in it, computed in fp64."""
        factors = self.factors.double()
        return base_OD.double() * (factors if self.of_inputs else factors[:, None])

    def bias(self, base_O: Tensor) -> Tensor:
        """The bias with the change in it."""
        return base_O if self.of_inputs else base_O.double() * self.factors.double()


Change = LowRank | Scaling
"""Of one layer."""


@torch.no_grad()
def fold(model: Transformer, changes: Mapping[str, Change]) -> Transformer:
    """The same model, with plain layers that compute what their weights and changes, by layers' names, say together. A
    layer in few bits is made whole first. DataError for one whose inputs are rounded too."""
    for name, change in changes.items():
        room, _, last = name.rpartition(".")
        setattr(model.get_submodule(room), last, folded(name, model.get_submodule(name), change))
    return model


def folded(name: str, layer: nn.Module, change: Change) -> Linear:
    """A plain layer in the place of one, with the change in it."""
    base_OD, bias_O = whole(name, layer)
    outputs, inputs = base_OD.shape
    made = Linear(inputs, outputs, bias=bias_O is not None, device="meta")
    made.weight = nn.Parameter(change.weight(base_OD).to(base_OD.dtype))
    if bias_O is not None:
        made.bias = nn.Parameter(change.bias(bias_O).to(bias_O.dtype))
    return made.train(layer.training)


def whole(name: str, layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    """The weight of a layer, whole whatever bits it is stored in, and its bias."""
    if isinstance(layer, StoredLinear):
        return layer.weight, layer.bias_O
    if not isinstance(layer, nn.Linear):
        raise DataError(f"{name} is computed in whole numbers, in which no adapter can be merged")
    return layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
