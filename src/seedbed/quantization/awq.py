"""AWQ: columns that meet large inputs are made larger before they are rounded, and what makes those inputs smaller (Lin
et al. 2023, arXiv:2306.00978, §3.2).

The model computes the same before it is rounded: (W·diag(s))·(s⁻¹·x) = W·x. s is the size of each input to the power
of α, of which that one is taken with which the rounded layers miss the least of their outputs.

Shape suffixes: O outputs, D inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seedbed.model.config import ModelConfig
from seedbed.model.feedforward import FeedForward, GatedFeedForward
from seedbed.model.linears.int4 import HIGHEST, LOWEST, spread
from seedbed.model.transformer import Block, Transformer
from seedbed.quantization.moments import second_moments
from seedbed.quantization.rounding import int4_scales, whole_numbers
from seedbed.quantization.walk import Part

POWERS = torch.linspace(0, 1, 21)
"""α; 0 changes nothing."""
FAINTEST = 1e-4
"""Share of the largest input below which one counts as that large: inputs that never occur must not divide."""


class Stretch(NamedTuple):
    """Layers that read the same, and what makes it."""

    readers: list[str]
    source: nn.Module
    """A norm, or a layer with an output for each of their inputs."""


def equalise(model: Transformer, part: Part, names: Sequence[str], group: int) -> None:
    """Changes layers of a part that are about to be rounded, in groups of inputs, and those before them, which may be
    rounded too. Where no layer before can take the scales, nothing is changed, nor where one of those that read the
    same is not to be rounded."""
    for stretch in stretches(model, part):
        if not set(stretch.readers) <= set(names):
            continue
        layers = [model.get_submodule(name) for name in stretch.readers]
        weights = [layer.weight for layer in layers if isinstance(layer, nn.Linear)]
        scale_D = best_scale(weights, second_moments(model, part, stretch.readers[0]), group)
        for weight_OD in weights:
            weight_OD.mul_(scale_D)
        for name, value in stretch.source.named_parameters():
            value.div_(scale_D if value.ndim == 1 else scale_D[:, None])
            assert name in ("weight", "bias")


def stretches(model: Transformer, part: Part) -> list[Stretch]:
    """Those of a block whose inputs can be scaled by what makes them, in its order."""
    if not part.name.startswith("blocks."):
        return []
    block, config, found = model.get_submodule(part.name.removesuffix(".")), model.config, []
    assert isinstance(block, Block)
    normed = config.norm_place != "post"  # else the residual stream itself would change
    if normed and block.attention.value_gate is None:
        found.append(Stretch(["attention.query", "attention.key", "attention.value"], block.attention_norm))
    if config.heads == config.kv_heads and block.attention.value_gate is None:
        found.append(Stretch(["attention.output"], block.attention.value))
    if isinstance(inner := block.feedforward, FeedForward | GatedFeedForward):
        first = ["feedforward.gate", "feedforward.up"] if isinstance(inner, GatedFeedForward) else ["feedforward.up"]
        if normed:
            found.append(Stretch(first, block.feedforward_norm))
        if passes_scales(config):
            found.append(Stretch(["feedforward.down"], inner.up))
    return [Stretch([part.name + name for name in readers], source) for readers, source in found]


def passes_scales(config: ModelConfig) -> bool:
    """Whether what is twice as large before the nonlinearity of a feed-forward is so behind it."""
    return config.is_gated or config.activation == "relu"


def best_scale(weights: Sequence[Tensor], second_DD: Tensor, group: int) -> Tensor:
    """What each input's columns are to be multiplied with (D), fp32, above 0."""
    size_D = second_DD.diagonal().sqrt()
    if not size_D.any():
        return torch.ones(len(size_D))
    size_D = size_D.clamp(min=FAINTEST * float(size_D.amax()))

    def scale_of(power: float) -> Tensor:
        scale_D = size_D**power
        return (scale_D / (scale_D.amax() * scale_D.amin()).sqrt()).float()

    def missed(scale_D: Tensor) -> float:
        return sum(_missed(weight_OD, scale_D, second_DD, group) for weight_OD in weights)

    return min((scale_of(power) for power in POWERS.tolist()), key=missed)


def _missed(weight_OD: Tensor, scale_D: Tensor, second_DD: Tensor, group: int) -> float:
    """Σ ‖(W − Ŵ)·x‖² of a layer that is rounded with its columns scaled."""
    scaled_OD = weight_OD * scale_D
    step_OD = spread(int4_scales(scaled_OD, group).float(), group, scaled_OD.shape[1])
    rounded_OD = whole_numbers(scaled_OD, step_OD, LOWEST, HIGHEST) * step_OD / scale_D
    missed_OD = (rounded_OD - weight_OD).double()
    return float(((missed_OD @ second_DD) * missed_OD).sum())
