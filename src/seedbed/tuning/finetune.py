"""Supervised fine-tuning on conversations: cross-entropy of the assistant's tokens, its end of turn among them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from seedbed.data.conversations import Example, read_conversations
from seedbed.data.packing import PackedSource
from seedbed.data.rows import naming, row_name
from seedbed.errors import ConfigError, DataError
from seedbed.model.folder import find_model, load_model
from seedbed.model.transformer import Transformer
from seedbed.tokenizers.chat import Encoded, find_template
from seedbed.tokenizers.tokenizer import Tokenizer
from seedbed.training.objective import NextToken
from seedbed.training.stage import VALIDATION_SEED, Stage, run_stage
from seedbed.tuning.config import FinetuneConfig


def finetune(config: FinetuneConfig) -> dict[str, Any]:
    """Fine-tunes every weight of a model; returns the result that `result.json` holds."""
    model, tokenizer = load_model(config.model)
    if config.template is not None:
        tokenizer = tokenizer.with_template(find_template(config.template))
    length = config.length or min(512, model.config.context)
    if length > model.config.context:
        raise ConfigError(f"length is {length}, longer than the model's context {model.config.context}")
    if tokenizer.pad_id is None:
        raise ConfigError(f"the tokenizer of {config.model} has no padding token, which packed rows need")
    config = replace(config, length=length)
    train, held_out = _split(config)

    pad_id = tokenizer.pad_id

    def packed(conversations: Iterable[Example], source: Path, seed: int) -> PackedSource:
        encoded, names = _encode(conversations, tokenizer, source)
        return PackedSource(encoded, length, seed, pad_id, names)

    def starting_model() -> Transformer:
        return load_model(config.model)[0]

    inputs = {"model": find_model(config.model), "data": config.data}
    if config.validation is not None:
        inputs["validation"] = config.validation
    stage = Stage(
        name="finetune",
        model=starting_model,
        tokenizer=tokenizer,
        source=packed(train, config.data, config.train.seed),
        validation=packed(held_out, config.validation or config.data, VALIDATION_SEED),
        objective=NextToken(),
        length=length,
        inputs=inputs,
    )
    return run_stage(stage, config)


def _split(config: FinetuneConfig) -> tuple[list[Example], list[Example]]:
    """Training and validation conversations."""
    conversations = list(read_conversations(config.data))
    if config.validation is not None:
        return conversations, list(read_conversations(config.validation))
    if len(conversations) < 2:
        raise DataError(f"{config.data} holds one conversation: none is left to validate on", "Give --validation FILE.")

    def place(conversation: Example) -> bytes:
        return hashlib.sha256(repr(replace(conversation, row=0)).encode("utf-8", "surrogatepass")).digest()

    ordered = sorted(conversations, key=place)
    kept = max(1, round(config.validation_fraction * len(ordered)))
    # Equal conversations hash alike and stay together, so that none is on both sides.
    while kept < len(ordered) - 1 and place(ordered[kept]) == place(ordered[kept - 1]):
        kept += 1
    return ordered[kept:], ordered[:kept]


def _encode(conversations: Iterable[Example], tokenizer: Tokenizer, source: Path) -> tuple[list[Encoded], list[str]]:
    encoded: list[Encoded] = []
    names: list[str] = []
    for conversation in conversations:
        name = row_name(source, conversation.row)
        with naming(name):
            encoded.append(conversation.encode(tokenizer))
        names.append(name)
    return encoded, names
