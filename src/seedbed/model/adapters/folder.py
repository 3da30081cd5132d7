"""An adapter's folder: which layers of a base it changes, and how.

Names and shapes are held against the base before a byte of a weight is read.

Shape suffixes: R rank, D inputs, O outputs of a layer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from seedbed.errors import DataError
from seedbed.model.adapters.changes import Change, LowRank
from seedbed.model.adapters.peft_config import CONFIG, MERGE, read_config
from seedbed.model.config import ModelConfig
from seedbed.model.huggingface.classes import find_table
from seedbed.model.names import Layout, Shape, layers_of_theirs
from seedbed.model.transformer import weight_shapes
from seedbed.model.weights import StoredTensor, one_dtype, read_header, read_weights
from seedbed.runs import MANIFEST, json_name, open_folder, read_json, read_manifest

WEIGHTS = "adapter_model.safetensors"
PART = re.compile(r"base_model\.model\.(.+)\.(lora_A\.weight|lora_B\.weight|lora_magnitude_vector)")
DOWN, UP, LENGTHS = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"
SERVED = re.compile(
    r"blocks\.\d+\.(attention\.(query|key|value|output)|feedforward\.(shared\.)?(gate|up|down))\.weight"
)
"""The weights of ours that can have an addition."""
OVER = "over"
"""Key of the manifest's config: nf4, where the base was in these bits when the adapter was trained."""


def read_adapter(folder: Path, base: ModelConfig) -> dict[str, Change]:
    """What the adapter makes of the layers of a model of that config, by their names, as "blocks.0.attention.query".

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
    kinds = (DOWN, UP, LENGTHS) if config.use_dora else (DOWN, UP)
    layers = _layers(file, stored, kinds, shapes, layers_of_theirs(shapes, find_table(base)))
    for layer, (_, ours) in layers.items():
        sizes = shapes[ours[0]][1], sum(shapes[name][0] for name in ours)
        _check_shapes(file, layer, stored[_name(layer, DOWN)].shape, stored[_name(layer, UP)].shape, *sizes, config.r)
        if config.use_dora and (found := stored[_name(layer, LENGTHS)].shape) != sizes[1:]:
            raise DataError(f"{file}: {LENGTHS} of {layer} has shape {found}, the layer {sizes[1]:,} outputs")
    one_dtype(folder, stored)
    weights, changes = read_weights(stored), dict[str, Change]()
    for layer, (layout, ours) in layers.items():
        outputs = [shapes[name][0] for name in ours]
        parts = [
            [None] * len(ours)
            if kind not in kinds
            else layout.split_outputs(weights[_name(layer, kind)], outputs, base.head_width)
            for kind in (UP, LENGTHS)
        ]
        for name, up_OR, lengths_O in zip(ours, *parts, strict=True):
            assert up_OR is not None
            change = LowRank(weights[_name(layer, DOWN)], up_OR, config.scale, lengths_O)
            changes[name.removesuffix(".weight")] = change
    return changes


def _name(layer: str, kind: str) -> str:
    return f"base_model.model.{layer}.{kind}"


def _layers(
    file: Path,
    stored: dict[str, StoredTensor],
    kinds: Sequence[str],
    shapes: dict[str, Shape],
    known: dict[str, tuple[Layout, list[str]]],
) -> dict[str, tuple[Layout, list[str]]]:
    """The layers of theirs that it changes, and which of ours lie in each. DataError for anything else."""
    layers = {}
    for name in stored:
        found = PART.fullmatch(name)
        if found is None or found[2] not in kinds:
            raise DataError(f"{file}: {name[:100]} is no matrix of LoRA: seedbed does not serve it", MERGE)
        layer, lies = found[1], known.get(f"{found[1]}.weight")
        if lies is None:
            raise DataError(f"{file}: the base has no layer {layer[:100]}", "Give the model it was trained over.")
        if not all(SERVED.fullmatch(ours) and len(shapes[ours]) == 2 for ours in lies[1]):
            raise DataError(f"{file}: seedbed does not serve what LoRA adds to {layer[:100]}", MERGE)
        for other in (_name(layer, kind) for kind in kinds):
            if other not in stored:
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


def is_adapter(folder: Path) -> bool:
    """Whether a folder is one of an adapter."""
    return (folder / CONFIG).is_file()


def adds(folder: Path) -> bool:
    """Whether all that an adapter does is to add to what layers compute, so that rows of a pass may wear it or not."""
    return not read_config(folder).use_dora


def base_of(folder: Path) -> Path:
    """The folder of the model that an adapter is for, as its config names it. DataError when it is not there, or, where
    the adapter knows its hash, is another one now."""
    named = read_json(folder / CONFIG).get("base_model_name_or_path")
    fix = f"Give the base and the adapter by themselves: --model BASE --adapter {folder}"
    if not isinstance(named, str) or not Path(named).is_dir():
        raise DataError(f"{folder} is an adapter over {json_name(named)}, and there is no such folder", fix)
    base = Path(named)
    knows = (folder / MANIFEST).is_file() and (base / MANIFEST).is_file()
    if knows and open_folder(folder, "adapter").inputs.get("model") != read_manifest(base).hash:
        raise DataError(f"{folder} was trained over another model than {base} holds now", fix)
    return base
