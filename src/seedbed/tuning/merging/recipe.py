"""From a config to what is done with one tensor of every model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from seedbed.tuning.merging.averages import linear, model_stock, slerp
from seedbed.tuning.merging.changes import elected, largest, middle, random
from seedbed.tuning.merging.config import MergeConfig

Weights = Mapping[str, Tensor]
"""Of a model, by name."""
NUMBERS = {"fp32": torch.float32, "fp64": torch.float64}


def merged(
    config: MergeConfig, weights: Sequence[float], base: Weights | None, models: Sequence[Weights]
) -> dict[str, Tensor]:
    """Every tensor of the merged model, in the dtype of the base's or the first model's."""
    numbers, origin = NUMBERS[config.arithmetic], models[0] if base is None else base
    result = {}
    for name, first in origin.items():
        tensors = [model[name].to(numbers) for model in models]
        began = None if base is None else base[name].to(numbers)
        result[name] = merge_tensor(config, weights, name, began, tensors).to(first.dtype)
    return result


def merge_tensor(
    config: MergeConfig, weights: Sequence[float], name: str, base: Tensor | None, tensors: Sequence[Tensor]
) -> Tensor:
    """One tensor by the method of the config; `base` is there for those that need it."""
    if config.method == "linear":
        return linear(tensors, weights, config.normalized)
    if config.method == "slerp":
        return slerp(tensors[0], tensors[1], config.t)
    assert base is not None, "the config sees to it"
    if config.method == "model_stock":
        return model_stock(base, tensors)
    changes = [_thinned(config, f"{number} {name}", tensor - base) for number, tensor in enumerate(tensors)]
    combine = elected if config.of_changes.votes else linear
    return base + config.scale * combine(changes, weights, config.normalized)


def _thinned(config: MergeConfig, label: str, change: Tensor) -> Tensor:
    """The part of a change that is merged."""
    match config.of_changes.keeps:
        case "all":
            return change
        case "largest":
            return largest(change, config.kept)
        case "middle":
            return middle(change, config.kept, config.outliers)
        case "random":
            digest = hashlib.sha256(
                f"{config.seed} {label}".encode()
            ).digest()  # its own draws, whatever else is merged
            return random(change, config.kept, torch.Generator().manual_seed(int.from_bytes(digest[:7])))
