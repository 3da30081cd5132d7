"""An adapter's folder: which layers of a base it changes, and how.

Names and shapes are held against the base before a byte of a weight is read.

Shape suffixes: R rank, D inputs, O outputs of a layer.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from seedbed.errors import DataError
from seedbed.model.adapters.changes import Change, LowRank, Scaling
from seedbed.model.adapters.peft_config import CONFIG, MERGE, Ia3File, LoraFile, gives_scores, read_config
from seedbed.model.config import ModelConfig
from seedbed.model.huggingface.classes import find_table
from seedbed.model.linears.storage import STORED
from seedbed.model.names import Layout, Shape, layers_of_theirs
from seedbed.model.transformer import weight_shapes
from seedbed.model.weights import StoredTensor, one_dtype, read_header, read_weights
from seedbed.runs import MANIFEST, input_hash, json_name, open_folder, read_json, read_manifest

logger = logging.getLogger(__name__)

WEIGHTS = "adapter_model.safetensors"
ALONE = "Open the model with it alone: --adapter on the command line, seedbed.load(ADAPTER) in Python."
"""What does more than to add is worn by all rows or none."""
PART = re.compile(r"base_model\.model\.(.+)\.(lora_A\.weight|lora_B\.weight|lora_magnitude_vector|ia3_l)")
DOWN, UP, LENGTHS, FACTORS = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector", "ia3_l"
SERVED = re.compile(
    r"blocks\.\d+\.(attention\.(query|key|value|output)|feedforward\.(shared\.)?(gate|up|down))\.weight"
)
"""The weights of ours that can be changed."""
SCORE = "base_model.model.score.weight"
"""Of the score head that a reward model has beside its adapter, in peft's files."""
OVER = "over"
"""Key of the manifest's config: nf4, where the base was in these bits when the adapter was trained."""


def read_adapter(folder: Path, base: ModelConfig) -> dict[str, Change]:
    """What the adapter makes of the layers of a model of that config, by their names, as "blocks.0.attention.query":
    for whoever speaks.

    DataError, in one line, where it was made for another model, wants what is not served, or makes a reward model;
    CorruptionError for a broken file.
    """
    if gives_scores(folder):
        raise DataError(f"{folder} is the adapter of a reward model: it gives scores, no tokens", "Take another one.")
    return read_changes(folder, base)


def read_changes(folder: Path, base: ModelConfig) -> dict[str, Change]:
    """The same, of reward models too."""
    config, file = read_config(folder), weights_file(folder)
    if not isinstance(config, LoraFile | Ia3File):
        raise DataError(f"{folder} does not change layers by themselves: rows beside others cannot wear it", ALONE)
    stored, shapes = stored_adapter(file), weight_shapes(base)
    kinds = [FACTORS]
    if isinstance(config, LoraFile):
        kinds = [DOWN, UP, LENGTHS] if config.use_dora else [DOWN, UP]
    layers = _layers(file, stored, kinds, shapes, layers_of_theirs(shapes, find_table(base)))
    for layer, (_, ours) in layers.items():
        inputs, outputs = shapes[ours[0]][1], sum(shapes[name][0] for name in ours)
        found = [stored[_name(layer, kind)].shape for kind in kinds]
        if isinstance(config, LoraFile):
            _check_shapes(file, layer, found[0], found[1], inputs, outputs, config.r)
            if config.use_dora and found[2] != (outputs,):
                raise DataError(f"{file}: {LENGTHS} of {layer} has shape {found[2]}, the layer {outputs:,} outputs")
        elif found[0] not in ((outputs, 1), (1, inputs)):
            told = f"has shape {found[0]}, the layer {inputs:,} inputs and {outputs:,} outputs"
            raise DataError(f"{file}: {FACTORS} of {layer} {told}", "Give the model it was trained over.")
    one_dtype(folder, stored)
    weights, changes = read_weights(stored), dict[str, Change]()
    for layer, (layout, ours) in layers.items():
        parts = [weights[_name(layer, kind)] for kind in kinds]
        split = partial(layout.split_outputs, sizes=[shapes[name][0] for name in ours], head_width=base.head_width)
        made = _changes(parts, config, split, len(ours))
        changes |= {name.removesuffix(".weight"): change for name, change in zip(ours, made, strict=True)}
    return changes


def stored_adapter(file: Path) -> dict[str, StoredTensor]:
    """What the adapter's file holds of the adapter itself."""
    return {name: tensor for name, tensor in read_header(file).items() if name != SCORE}


def read_score(folder: Path, base: ModelConfig) -> Tensor | None:
    """The weight of the score head that an adapter's folder holds; None where it holds none."""
    if not gives_scores(folder):
        return None
    file = weights_file(folder)
    stored, shape = read_header(file).get(SCORE), (1, base.width)
    if stored is None or stored.shape != shape:
        found = "is missing" if stored is None else f"has shape {stored.shape}"
        raise DataError(f"{file}: {SCORE} {found}; a reward model over this base has one of shape {shape}")
    return read_weights({SCORE: stored})[SCORE]


def _changes(
    parts: Sequence[Tensor], config: LoraFile | Ia3File, split: Callable[[Tensor], list[Tensor]], count: int
) -> Sequence[Change]:
    """Of each layer of ours that lies in one of theirs; `split` divides what has a row for each output."""
    if isinstance(config, LoraFile):
        down_RD, up_PR, *lengths_P = parts
        lengths = split(lengths_P[0]) if lengths_P else [None] * count
        ups = split(up_PR)
        return [LowRank(down_RD, up_OR, config.scale, each) for up_OR, each in zip(ups, lengths, strict=True)]
    (factors,) = parts
    if factors.shape[0] == 1 and factors.shape[1] > 1:
        return [Scaling(factors[0], of_inputs=True)] * count
    return [Scaling(part[:, 0], of_inputs=False) for part in split(factors)]


def weights_file(folder: Path) -> Path:
    """Where the weights of an adapter's folder lie. DataError when they are not there."""
    if not (folder / WEIGHTS).is_file():
        raise DataError(
            f"{folder} holds no {WEIGHTS}: other files of weights can hold code, and are not read",
            "Save it with peft: model.save_pretrained(FOLDER).",
        )
    return folder / WEIGHTS


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
            what = "vector of IA³" if FACTORS in kinds else "matrix of LoRA"
            raise DataError(f"{file}: {name[:100]} is no {what}: seedbed does not serve it", MERGE)
        layer, lies = found[1], known.get(f"{found[1]}.weight")
        if lies is None:
            raise DataError(f"{file}: the base has no layer {layer[:100]}", "Give the model it was trained over.")
        if not all(SERVED.fullmatch(ours) and len(shapes[ours]) == 2 for ours in lies[1]):
            raise DataError(f"{file}: seedbed does not serve a change of {layer[:100]}", MERGE)
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


def base_bits(folder: Path) -> str | None:
    """nf4, where the base was in these bits when the adapter was trained; None for others, and where nobody knows."""
    return open_folder(folder, "adapter").config.get(OVER) if (folder / MANIFEST).is_file() else None


def adds(folder: Path) -> bool:
    """Whether all that an adapter does is to add to what layers compute, so that rows of a pass may wear it or not."""
    config = read_config(folder)
    return isinstance(config, LoraFile) and not config.use_dora


def base_of(folder: Path) -> Path:
    """The folder of the model that an adapter is for, as its config names it. DataError when it is not there, is an
    adapter, or, where the adapter knows its hash, is another one now."""
    named = read_json(folder / CONFIG).get("base_model_name_or_path")
    fix = (
        f"Give the base and the adapter by themselves: --model BASE --adapter {folder}\n"
        f"For a command that has no --adapter, make one model of both: seedbed fuse --model BASE --adapter {folder} "
        "--out MODEL"
    )
    if not isinstance(named, str) or not Path(named).is_dir():
        raise DataError(f"{folder} is an adapter over {json_name(named)}, and there is no such folder", fix)
    base = Path(named)
    if is_adapter(base):
        raise DataError(f"{folder} is an adapter over {named}, which is one, too", fix)
    knows = (folder / MANIFEST).is_file() and (base / MANIFEST).is_file()
    if knows and open_folder(folder, "adapter").inputs.get("model") != read_manifest(base).hash:
        raise DataError(f"{folder} was trained over another model than {base} holds now", fix)
    return base


def tell_other_base(folder: Path, base: Path) -> None:
    """A warning, where an adapter knows what it was trained over, that `base` is another model: of the same shape, it
    takes the adapter without a word. A copy in another place is the same model, and so is one in fewer bits.

    It is no error: some put what was learned over one model on purpose over what became of that model since.
    """
    if not (folder / MANIFEST).is_file():
        return
    known = open_folder(folder, "adapter").inputs.get("model")
    if known is None or known in _hashes(base):
        return
    logger.warning(
        "%s was trained over another model than %s holds: what both together say, nobody has learned", folder, base
    )


def _hashes(base: Path) -> set[str]:
    """Of a model, and of the one that it was made of where it is that one in fewer bits."""
    if not (base / MANIFEST).is_file():
        return {input_hash(base)}
    manifest = read_manifest(base)
    return {manifest.hash, manifest.inputs.get("model", manifest.hash) if STORED in manifest.config else manifest.hash}
