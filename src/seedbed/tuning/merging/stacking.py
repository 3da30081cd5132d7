"""Layers of several models, one after the other: a deeper model of trained parts (mergekit's "passthrough")."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from seedbed.errors import ConfigError
from seedbed.model.config import ModelConfig
from seedbed.model.transformer import weight_shapes
from seedbed.tuning.merging.recipe import Weights

SLICE = re.compile(r"(\d+):(\d+)-(\d+)")


@dataclass(frozen=True)
class Slice:
    """Layers `first` to before `end` of a model."""

    model: int
    first: int
    end: int


def read_slices(texts: Sequence[str], models: int, layers: int) -> list[Slice]:
    """What NUMBER:FIRST-END say. ConfigError for what is none, or names a model or layers that are not there."""
    slices = []
    for text in texts:
        if (found := SLICE.fullmatch(text)) is None:
            raise ConfigError(f"layers: {text!r} is not NUMBER:FIRST-END", 'Such as "0:0-8".')
        slice_ = Slice(*map(int, found.groups()))
        if slice_.model >= models:
            raise ConfigError(f"layers: {text!r} names model {slice_.model}, but there are 0 to {models - 1}")
        if not slice_.first < slice_.end <= layers:
            raise ConfigError(f"layers: {text!r} must be a part of 0-{layers}")
        slices.append(slice_)
    return slices


def stacked(
    config: ModelConfig, models: Sequence[Weights], slices: Sequence[Slice]
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The config and the weights of the stack. ConfigError where a layer does not fit its new place, as one that has
    experts where none are."""
    origins = [(slice_.model, layer) for slice_ in slices for layer in range(slice_.first, slice_.end)]
    deeper = replace(config, layers=len(origins), depth=None)
    first, last = models[slices[0].model], models[slices[-1].model]
    weights = {}
    for name, shape in weight_shapes(deeper).items():
        room, _, inside = name.partition(".")
        number, _, inside = inside.partition(".")
        if number.isdigit():
            model, layer = origins[int(number)]
            weight = models[model].get(f"{room}.{layer}.{inside}")
            if weight is None or weight.shape != shape:
                raise ConfigError(f"layer {layer} of model {model} does not fit where layer {number} shall be: {name}")
        else:
            weight = (first if room == "embedding" else last)[name]
        weights[name] = weight
    return deeper, weights
