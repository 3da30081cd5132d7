"""An adapter's folder: which layers of a base it changes, and how.

Names and shapes are held against the base before a byte of a weight is read.

Shape suffixes: R rank, D inputs, O outputs of a layer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from seedbed.errors import DataError
from seedbed.model.adapters.config import CONFIG, MERGE, read_config
from seedbed.model.config import ModelConfig
from seedbed.model.huggingface.classes import find_table
from seedbed.model.names import Layout, Shape, layers_of_theirs
from seedbed.model.transformer import weight_shapes
from seedbed.model.weights import StoredTensor, one_dtype, read_header, read_weights

WEIGHTS = "adapter_model.safetensors"
MATRIX = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
SERVED = re.compile(
    r"blocks\.\d+\.(attention\.(query|key|value|output)|feedforward\.(shared\.)?(gate|up|down))\.weight"
)
"""The weights of ours that can have an addition."""


@dataclass(frozen=True)
class LowRank:
    """What is added to a layer's weight: scale · up · down."""

    down_RD: Tensor
    up_OR: Tensor
    scale: float


def read_adapter(folder: Path, base: ModelConfig) -> dict[str, LowRank]:
    """What the adapter adds to the layers of a model of that config, by their names, as "blocks.0.attention.query".

    DataError, in one line, where it was made for another model or wants what is not served; CorruptionError for a
    broken file.
    """
    config, file = read_config(folder), folder / WEIGHTS
    if not file.is_file():
        raise DataError(
            f"{folder} holds no {WEIGHTS}: other files of weights can hold code, and are not read",
            "Save it with peft: model.save_pretrained(FOLDER).",
        )
    stored, shapes = read_header(file), weight_shapes(base)
    layers = _layers(file, stored, shapes, layers_of_theirs(shapes, find_table(base)))
    for layer, (_, ours) in layers.items():
        sizes = shapes[ours[0]][1], sum(shapes[name][0] for name in ours)
        _check_shapes(file, layer, stored[_name(layer, "A")].shape, stored[_name(layer, "B")].shape, *sizes, config.r)
    one_dtype(folder, stored)
    weights, added = read_weights(stored), {}
    for layer, (layout, ours) in layers.items():
        down_RD, up_OR = weights[_name(layer, "A")], weights[_name(layer, "B")]
        parts = layout.split_outputs(up_OR, [shapes[name][0] for name in ours], base.head_width)
        for name, part_OR in zip(ours, parts, strict=True):
            added[name.removesuffix(".weight")] = LowRank(down_RD, part_OR, config.scale)
    return added


def _name(layer: str, matrix: str) -> str:
    return f"base_model.model.{layer}.lora_{matrix}.weight"


def _layers(
    file: Path,
    stored: dict[str, StoredTensor],
    shapes: dict[str, Shape],
    known: dict[str, tuple[Layout, list[str]]],
) -> dict[str, tuple[Layout, list[str]]]:
    """The layers of theirs that it changes, and which of ours lie in each. DataError for anything else."""
    layers = {}
    for name in stored:
        found = MATRIX.fullmatch(name)
        if found is None:
            raise DataError(f"{file}: {name[:100]} is no matrix of LoRA: seedbed does not serve it", MERGE)
        layer, lies = found[1], known.get(f"{found[1]}.weight")
        if lies is None:
            raise DataError(f"{file}: the base has no layer {layer[:100]}", "Give the model it was trained over.")
        if not all(SERVED.fullmatch(ours) and len(shapes[ours]) == 2 for ours in lies[1]):
            raise DataError(f"{file}: seedbed does not serve what LoRA adds to {layer[:100]}", MERGE)
        if (other := _name(layer, "B" if found[2] == "A" else "A")) not in stored:
            raise DataError(f"{file}: {other[:100]} is missing")
        layers[layer] = lies
    if not layers:
        raise DataError(f"{file} holds no weights")
    return layers


def _check_shapes(file: Path, layer: str, down: Shape, up: Shape, inputs: int, outputs: int, rank: int) -> None:
    if len(down) != 2 or len(up) != 2:
        raise DataError(f"{file}: the matrices of {layer} have shapes {down} and {up}")
    if (down[1], up[0]) != (inputs, outputs):
        raise DataError(
            f"{file}: {layer} has {down[1]:,} inputs and {up[0]:,} outputs, in the base {inputs:,} and {outputs:,}: "
            "it was trained over another model",
            "Give the model it was trained over.",
        )
    if (down[0], up[1]) != (rank, rank):
        raise DataError(f"{file}: the matrices of {layer} have ranks {down[0]} and {up[1]}, {CONFIG} says {rank}")
