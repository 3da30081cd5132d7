"""A model on disk: a Hugging Face folder of the class Qwen3, with our exact config beside it.

`AutoModelForCausalLM`, vLLM and lm-eval load the folder as it stands. Only safetensors and JSON are read.
"""

from __future__ import annotations

import json
import os
import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from seedbed.errors import CorruptionError, DataError
from seedbed.model.config import ModelConfig
from seedbed.model.names import from_huggingface, to_huggingface
from seedbed.model.transformer import Transformer
from seedbed.runs import MANIFEST, Inputs, Manifest, input_hash, new_folder, open_folder, write_card, write_json
from seedbed.tokenizers.tokenizer import Tokenizer

WEIGHTS = "model.safetensors"
CHECKPOINTS = "checkpoints"
"""Folder of a run's checkpoints."""
TOKENIZER = "tokenizer"
"""Folder of a run's tokenizer."""


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
    with new_folder(folder, "model", inputs=inputs, config=asdict(model.config), overwrite=overwrite) as staging:
        names = to_huggingface(dict(model.named_parameters()))
        weights = {names[name]: weight.detach().cpu().contiguous() for name, weight in model.named_parameters()}
        _write_weights(staging / WEIGHTS, weights)
        write_json(staging / "config.json", huggingface_config(model.config, weights))
        write_json(staging / "generation_config.json", generation_config(model.config, tokenizer))
        lineage = {role: input_hash(source) for role, source in inputs.items()}
        exact = {"format": 1, "model": asdict(model.config), "tokenizer": tokenizer.hash, "inputs": lineage}
        write_json(staging / "seedbed.json", exact)
        tokenizer.save(staging)
        write_card(staging, f"{folder.parent.name}/{folder.name}", card)
    return open_folder(folder, "model")


def _write_weights(file: Path, weights: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file; an error of the operating system, which safetensors tells in words, as an OSError."""
    try:
        save_file(dict(weights), file, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(file)) from error


def find_model(path: Path) -> Path:
    """The model or checkpoint folder that `path` means: itself, a run's model, or the newest checkpoint of a run that
    has no model yet. Raises DataError when there is none."""
    if (path / "model" / MANIFEST).is_file():
        return path / "model"
    if whole := sorted((path / CHECKPOINTS).glob(f"step_*/{MANIFEST}")):
        return whole[-1].parent
    return path


def tell_unfinished(path: Path) -> None:
    """On standard error, when `path` is a run that is not at its end: which of its checkpoints stands for it."""
    found = find_model(path)
    if found.parent == path / CHECKPOINTS:
        print(f"{path} is not finished: {found.name} is taken", file=sys.stderr)


def load_model(path: Path, *, device: torch.device | str = "cpu") -> tuple[Transformer, Tokenizer]:
    """The model of a model folder, a run or a checkpoint, in evaluation mode, and its tokenizer.

    Every byte is checked against the manifest first: CorruptionError when one has changed, DataError when the folder is
    none of the three or model and tokenizer do not belong together.
    """
    folder = find_model(path)
    manifest = open_folder(folder, ("model", "checkpoint"), verify="all")
    config = read_config(folder / "seedbed.json")
    is_checkpoint = manifest.kind == "checkpoint"
    tokenizer = Tokenizer.load(folder.parent.parent / TOKENIZER if is_checkpoint else folder)
    check_vocabulary(config, tokenizer, folder)
    model = Transformer(config)
    if is_checkpoint:
        load_weights(model, _checkpoint_weights(folder, model), folder)
    else:
        load_weights(model, _huggingface_weights(folder / WEIGHTS), folder / WEIGHTS)
    return model.to(device).eval(), tokenizer


def _huggingface_weights(file: Path) -> dict[str, Tensor]:
    try:
        theirs = load_file(file)
    except (SafetensorError, OSError) as error:
        raise CorruptionError(f"{file}: {error}") from None
    names = from_huggingface(theirs)
    return {names[name]: weight for name, weight in theirs.items()}


def _checkpoint_weights(folder: Path, model: Transformer) -> dict[str, Tensor]:
    import torch.distributed.checkpoint as dcp

    weights = {f"model.{name}": torch.empty_like(weight) for name, weight in model.named_parameters()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no process group is meant
        dcp.load(weights, storage_reader=dcp.HuggingFaceStorageReader(str(folder)))
    return {name.removeprefix("model."): weight for name, weight in weights.items()}


def load_weights(model: Transformer, weights: Mapping[str, Tensor], source: Path) -> None:
    """Copies `weights`, by our names, into the model. Raises DataError unless they are exactly the model's."""
    own = dict(model.named_parameters())
    for name in sorted(own.keys() ^ weights.keys()):
        raise DataError(
            f"{source}: the weight {name} is {'missing' if name in own else 'not one of this architecture'}"
        )
    with torch.no_grad():
        for name, weight in own.items():
            if weight.shape != weights[name].shape:
                promised, found = tuple(weight.shape), tuple(weights[name].shape)
                raise DataError(f"{source}: {name} has shape {found}, the config promises {promised}")
            weight.copy_(weights[name])


def read_config(path: Path) -> ModelConfig:
    """The exact config that `seedbed.json` holds."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))["model"]
        known = {field.name for field in fields(ModelConfig)}
        if unknown := values.keys() - known:
            raise DataError(f"{path}: {sorted(unknown)[0]} is not known to this version of seedbed")
        return ModelConfig(**values).resolve()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptionError(f"{path} cannot be read: {error}") from None


def check_vocabulary(config: ModelConfig, tokenizer: Tokenizer, where: Path) -> None:
    """Raises DataError when the model does not have one row of embeddings for each token id."""
    if config.vocab_size != tokenizer.vocab_size:
        raise DataError(
            f"{where}: the model has {config.vocab_size:,} token ids, the tokenizer {tokenizer.vocab_size:,}",
            "Use the tokenizer that the model was trained with, or leave model.vocab_size out.",
        )


def huggingface_config(config: ModelConfig, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """`config.json` of the Hugging Face class Qwen3ForCausalLM."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
        "pad_token_id": config.pad_id,
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "hidden_size": config.width,
        "initializer_range": 0.02,
        "intermediate_size": config.ff_width,
        "max_position_embeddings": config.context,
        "max_window_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "rms_norm_eps": config.norm_epsilon,
        # Written twice: transformers 5 reads rope_parameters, everything older reads rope_theta.
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "rope_scaling": None,
        "rope_theta": config.rope_base,
        "sliding_window": None,
        "tie_word_embeddings": config.tied,
        "torch_dtype": str(next(iter(weights.values())).dtype).removeprefix("torch."),
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": config.vocab_size,
    }


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
