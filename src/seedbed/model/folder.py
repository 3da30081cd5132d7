"""A model on disk: a Hugging Face folder wherever a class there computes the architecture, with our exact config
beside it.

`AutoModelForCausalLM`, vLLM and lm-eval load such a folder as it stands. Only safetensors and JSON are read.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seedbed.errors import ConfigError, CorruptionError, DataError
from seedbed.model.adapters.folder import OVER, base_of, is_adapter
from seedbed.model.adapters.opening import put_on
from seedbed.model.adapters.peft_config import gives_scores
from seedbed.model.config import ModelConfig
from seedbed.model.huggingface.classes import find_class, huggingface_config
from seedbed.model.huggingface.quantised import carries, quantization_config
from seedbed.model.importing import CONFIG, import_config, import_folder
from seedbed.model.linears.layers import made_whole, nf4, of_weights, storages, stored_layers
from seedbed.model.linears.parts import check_dtypes, check_stored, promised_parts, read_matrices, written_parts
from seedbed.model.linears.storage import STORED, Storage, describe, read_storages
from seedbed.model.names import OWN, Table, shapes_of_theirs, to_ours, to_theirs
from seedbed.model.score_head import refuse_score_head
from seedbed.model.transformer import Transformer, weight_shapes
from seedbed.model.weights import (
    StoredTensor,
    check_shapes,
    find_dtype,
    not_finite,
    one_dtype,
    read_headers,
    read_weights,
    write_weights,
)
from seedbed.runs import (
    MANIFEST,
    Inputs,
    Manifest,
    input_hash,
    new_folder,
    open_folder,
    read_json,
    read_record,
    refuse_unlisted,
    write_card,
    write_json,
)
from seedbed.tokenizers.tokenizer import Tokenizer

EXACT = "seedbed.json"
"""Our exact config, in model folders and checkpoints."""
FORMAT = 1
"""Version of that file."""
FIRST_FIELDS = (
    *("vocab_size", "layers", "width", "heads", "kv_heads", "head_width", "ff_width", "context", "rope_base"),
    *("norm_epsilon", "tied", "embedding_std", "pad_id", "bos_id", "eos_id"),
)
"""Of the model in that file, always there. Where a later one is missing, it had the value that is its default now."""
CHECKPOINTS = "checkpoints"
"""Folder of a run's checkpoints."""
TOKENIZER = "tokenizer"
"""Folder of a run's tokenizer."""
ADAPTER = "adapter"
"""Folder of what a run has made that trained an adapter."""
GENERATION = "generation_config.json"
FOR_OTHER_TOOLS = (CONFIG, GENERATION)
SAMPLING = ("max_new_tokens", "do_sample", "temperature", "top_k", "top_p")
"""Of generation_config.json: what a person may prefer otherwise, and other tools alone read."""


def save_model(
    folder: Path,
    model: Transformer,
    tokenizer: Tokenizer,
    *,
    inputs: Inputs,
    card: Mapping[str, str],
    overwrite: bool = False,
) -> Manifest:
    """Writes the whole folder, or nothing. `inputs`: what the model was made of; `card`: sections of its README."""
    with new_folder(folder, "model", inputs=inputs, config=manifest_config(model), overwrite=overwrite) as staging:
        write_model(staging, model, tokenizer, inputs=inputs)
        write_card(staging, f"{folder.parent.name}/{folder.name}", card)
    return open_folder(folder, "model")


def manifest_config(model: Transformer) -> dict[str, Any]:
    """What the manifest of a model folder says of the model."""
    return asdict(model.config) | _described(storages(model))


def write_model(folder: Path, model: Transformer, tokenizer: Tokenizer, *, inputs: Inputs) -> None:
    """All files but the card, into a new folder that is being filled. ConfigError for one that wears an adapter."""
    refuse_worn(model)
    config, stored, layers = model.config, storages(model), stored_layers(model)
    table = _table(config, stored)
    own: dict[str, Tensor] = dict(model.named_parameters())
    own |= {f"{name}.bias": layer.bias_O for name, layer in layers.items() if layer.bias_O is not None}
    parts = written_parts({name: layer.matrix for name, layer in layers.items()}, table)
    write_weights(folder, to_theirs(own, table, config.head_width) | parts)
    for name, values in _for_other_tools(config, tokenizer, model.dtype, stored).items():
        write_json(folder / name, values)
    lineage = {role: input_hash(source) for role, source in inputs.items()}
    write_config(folder, config, tokenizer=tokenizer.hash, inputs=lineage, **_described(stored))
    tokenizer.save(folder, config.context)


def refuse_worn(model: Transformer) -> None:
    """ConfigError for a model that wears an adapter, of which no plain model computes the same."""
    if model.adapter is not None:
        raise ConfigError(f"an adapter of the method {model.adapter.method} is no part of a model: it stays a folder")


def find_model(path: Path) -> Path:
    """The model, adapter or checkpoint folder that `path` means: itself, what a run has made, or the newest checkpoint
    of a run that is not at its end."""
    for made in ("model", ADAPTER):
        if (path / made / MANIFEST).is_file():
            return path / made
    if whole := sorted((path / CHECKPOINTS).glob(f"step_*/{MANIFEST}")):
        return whole[-1].parent
    return path


def tell_unfinished(path: Path) -> None:
    """On standard error, when `path` is a run that is not at its end: which of its checkpoints stands for it."""
    found = find_model(path)
    if found.parent == path / CHECKPOINTS:
        print(f"{path} is not finished: {found.name} is taken", file=sys.stderr)


def load_model(
    path: Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | str | None = None,
    tokenizer: Tokenizer | None = None,
    learns: bool = False,
    scores: bool = False,
) -> tuple[Transformer, Tokenizer]:
    """The model of a model folder, a run, a checkpoint or a folder of transformers, in evaluation mode, and its
    tokenizer. Of an adapter: its base with the adapter merged into it.

    `dtype`: of the weights; left out, the one they are stored in, and fp32 where layers are in few bits, which take no
    other. `tokenizer`: for a folder of transformers that holds none. `learns`: its weights are to be changed, which
    those in few bits cannot be; those that an adapter was trained over become whole, and one that is no number is
    refused. `scores`: it may be a reward model, which gives no tokens. Every byte is checked against the manifest
    first, where there is one, and what the config promises against what the files hold before memory is taken for it.
    CorruptionError when a byte has changed, DataError when the folder is none of the four, its parts do not belong
    together, or it cannot learn; ConfigError for a reward model that was not asked for.
    """
    folder = find_model(path)
    if is_adapter(folder):
        base = base_of(folder)
        model, tokenizer = load_model(
            base, device=device, dtype=dtype, tokenizer=tokenizer, learns=learns, scores=scores
        )
        model, tokenizer = adapted(folder, model, tokenizer)
        if not scores:
            refuse_score_head(model.config, str(folder))
        if not learns:
            return model, tokenizer
        if model.adapter is not None:
            raise DataError(
                f"{folder} is an adapter of the method {model.adapter.method}, which no plain model computes"
            )
        return _numbers(folder, made_whole(model)), tokenizer
    model, tokenizer = import_folder(folder, tokenizer) if is_foreign(folder) else _load_own(folder, learns)
    if not scores:
        refuse_score_head(model.config, str(folder))
    numbers = None if dtype is None else find_dtype(dtype)
    if stored := storages(model):
        if numbers not in (None, torch.float32):
            raise ConfigError(f"{folder} is quantized ({describe(stored)}): it computes in fp32", "Leave dtype out.")
        numbers = None  # scales keep theirs
    model = model.to(device, numbers).eval()
    return _numbers(folder, model) if learns else model, tokenizer


def _numbers(folder: Path, model: Transformer) -> Transformer:
    """The model. DataError where a weight is no number, of which no step makes one again."""
    if broken := not_finite(dict(model.named_parameters())):
        raise DataError(
            f"{folder}: {broken} holds what is no number: the model is broken", "Use an earlier checkpoint."
        )
    return model


def adapted(folder: Path, model: Transformer, tokenizer: Tokenizer) -> tuple[Transformer, Tokenizer]:
    """A model with the adapter of a folder, merged into it where that can be, and the tokenizer to use it with, which
    is the adapter's own if it has one."""
    if (folder / MANIFEST).is_file():
        manifest = open_folder(folder, "adapter", verify="all")
        if manifest.config.get(OVER) == "nf4" and not storages(model):
            model = nf4(model.float())  # what it was trained over
        own = Tokenizer.load(folder)
        _check_token_ids(model.config, own, folder)
        tokenizer = own
    return put_on(folder, model).eval(), tokenizer


def find_config(path: Path) -> ModelConfig:
    """The config of the same, without its weights."""
    folder = find_model(path)
    if is_adapter(folder):
        config = find_config(base_of(folder))
        return replace(config, head="score") if gives_scores(folder) else config
    if is_foreign(folder):
        return import_config(folder)
    open_folder(folder, ("model", "checkpoint"))
    return read_config(folder)


def is_foreign(folder: Path) -> bool:
    """Whether another tool made a model folder; one of ours that has lost its manifest is broken."""
    return (folder / CONFIG).is_file() and not any((folder / name).exists() for name in (MANIFEST, EXACT))


def _load_own(folder: Path, learns: bool) -> tuple[Transformer, Tokenizer]:
    manifest = open_folder(folder, ("model", "checkpoint"), verify="all")
    config, stored = read_config(folder), read_storages(folder / EXACT)
    if stored and learns:
        raise DataError(
            f"{folder} is quantized ({describe(stored)}): it learns no more, and is not rounded again",
            "Take the model that it was made of.",
        )
    is_checkpoint = manifest.kind == "checkpoint"
    found = _checkpoint_weights(folder, manifest, config) if is_checkpoint else _weights(folder, config, stored)
    whole_dtype = one_dtype(folder, found.whole)
    tokenizer = Tokenizer.load(folder.parent.parent / TOKENIZER if is_checkpoint else folder)
    _check_token_ids(config, tokenizer, folder)
    if not is_checkpoint:
        _check_promises(folder, config, tokenizer, whole_dtype, stored)
    return found.build(), tokenizer


class Weights(NamedTuple):
    """What a folder says it holds, which is what the config promises."""

    whole: dict[str, StoredTensor]
    """Those that are stored as they are."""
    build: Callable[[], Transformer]
    """Reads them all."""


def _checkpoint_weights(folder: Path, manifest: Manifest, config: ModelConfig) -> Weights:
    refuse_unlisted(folder, manifest, ".safetensors")  # its reader would read it too
    from seedbed.model import state  # brings torch.distributed.checkpoint, as slow to import as half of torch

    stored = state.weight_state(state.describe_state(folder))
    stored = {name: tensor for name, tensor in stored.items() if not name.startswith(state.BESIDE)}
    if "embedding.weight" not in stored:
        raise DataError(
            f"{folder} holds an adapter that is not trained to its end", "Give the same command again: it goes on."
        )
    check_shapes(weight_shapes(config), {name: tensor.shape for name, tensor in stored.items()}, folder)
    return Weights(stored, lambda: Transformer.of_weights(config, state.read_state(folder, stored)))


def _weights(folder: Path, config: ModelConfig, stored: Mapping[str, Storage]) -> Weights:
    found, shapes = read_headers(folder), weight_shapes(config)
    check_stored(stored, shapes, folder / EXACT)
    table = _table(config, stored)
    parts = promised_parts(stored, shapes, table)
    shapes = {name: shape for name, shape in shapes.items() if name.removesuffix(".weight") not in stored}
    promised = shapes_of_theirs(shapes, table, config.head_width)
    check_shapes(
        promised | {name: part.shape for name, part in parts.items()},
        {name: tensor.shape for name, tensor in found.items()},
        folder,
    )
    check_dtypes(parts, found, folder)

    def build() -> Transformer:
        weights = to_ours(read_weights({name: found[name] for name in promised}), shapes, table, config.head_width)
        if not stored:
            return Transformer.of_weights(config, weights)
        matrices = read_matrices(stored, weight_shapes(config), table, found)
        return of_weights(config, weights, matrices, folder / EXACT)

    return Weights({name: found[name] for name in promised}, build)


def _table(config: ModelConfig, stored: Mapping[str, Storage]) -> Table:
    """The names of the weights: those of the class that computes the architecture, if it can carry what is stored."""
    peer = find_class(config)
    return OWN if peer is None or not carries(config, stored) else peer.table


def _check_promises(
    folder: Path, config: ModelConfig, tokenizer: Tokenizer, dtype: torch.dtype, stored: Mapping[str, Storage]
) -> None:
    """DataError, naming file and key, when other tools would read another model from the folder than we do."""
    if read_json(folder / EXACT).get("tokenizer") != tokenizer.hash:
        raise DataError(f"{folder / EXACT}: the tokenizer beside it is not the one that tokenizer names")
    promises = _for_other_tools(config, tokenizer, dtype, stored)
    for name in FOR_OTHER_TOOLS:
        if name not in promises and (folder / name).exists():
            raise DataError(f"{folder / name}: no other tool does that with this model, so it must not be there")
    for name, promised in promises.items():
        said = read_json(folder / name)
        for key, value in promised.items():
            if key not in said:
                raise DataError(f"{folder / name}: {key} is missing; it must be {value}")
            if said[key] != value and key not in SAMPLING:
                raise DataError(f"{folder / name}: {key} must be {value}, as {EXACT} and the weights have it")


def write_config(folder: Path, config: ModelConfig, **lineage: Any) -> None:
    """Writes seedbed.json: the exact config, and what the model was made from."""
    write_json(folder / EXACT, {"format": FORMAT, "model": asdict(config), **lineage})


def _described(stored: Mapping[str, Storage]) -> dict[str, Any]:
    return {STORED: {name: asdict(storage) for name, storage in stored.items()}} if stored else {}


def read_config(folder: Path) -> ModelConfig:
    """The exact config that the `seedbed.json` of a model folder or checkpoint holds."""
    path = folder / EXACT
    if read_json(path).get("format") != FORMAT:
        raise DataError(f"{path}: format is not {FORMAT}, the one that this version of seedbed reads")
    try:
        return read_record(ModelConfig, path, "model", required=FIRST_FIELDS).resolve()
    except ConfigError as error:
        raise CorruptionError(f"{path}: {error.problem}") from error


def read_stored(folder: Path) -> dict[str, Storage]:
    """How the layers of a model folder are stored that are in few bits, by name; none in most."""
    return read_storages(folder / EXACT) if (folder / EXACT).is_file() else {}


def _check_token_ids(config: ModelConfig, tokenizer: Tokenizer, where: Path) -> None:
    """Raises DataError when the model does not have one row of embeddings for each token id, or means other ids by
    padding, beginning and end."""
    if config.vocab_size != tokenizer.vocab_size:
        raise DataError(
            f"{where}: the model has {config.vocab_size:,} token ids, the tokenizer {tokenizer.vocab_size:,}",
            "Use the tokenizer that the model was trained with, or leave model.vocab_size out.",
        )
    for name in ("pad_id", "bos_id", "eos_id"):
        if getattr(config, name) != getattr(tokenizer, name):
            told = f"the model's {name} is {getattr(config, name)}, the tokenizer's {getattr(tokenizer, name)}"
            raise DataError(f"{where}: {told}")


def _for_other_tools(
    config: ModelConfig, tokenizer: Tokenizer, dtype: torch.dtype, stored: Mapping[str, Storage]
) -> dict[str, dict[str, Any]]:
    """The files that other tools read, by name; none where no class of theirs computes the architecture, or carries
    what is stored."""
    described = huggingface_config(config, dtype)
    if described is None or not carries(config, stored):
        return {}
    if stored:
        described["quantization_config"] = quantization_config(config, stored)
    spoken = {GENERATION: generation_config(config, tokenizer)} if config.head == "tokens" else {}
    return {CONFIG: described, **spoken}


def generation_config(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """`generation_config.json`: which ids begin, pad and end a text."""
    return {
        "bos_token_id": config.bos_id,
        "pad_token_id": config.pad_id,
        "eos_token_id": list(tokenizer.end_ids) or None,
        "max_new_tokens": 100,
        "do_sample": True,
        "temperature": 0.8,
        "top_k": 0,
        "top_p": 1.0,
    }
