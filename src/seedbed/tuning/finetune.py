"""Supervised fine-tuning on conversations: cross-entropy of the assistant's tokens, its end of turn among them."""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from seedbed.data.batches.batch import BatchSource, TokenBatch
from seedbed.data.batches.loader import WindowSource
from seedbed.data.batches.mixture import MixtureSource, Phase
from seedbed.data.batches.packing import PackedSource
from seedbed.data.conversations import Example, read_conversations
from seedbed.data.rows import naming, row_files, row_name
from seedbed.data.tokens import open_tokens
from seedbed.errors import ConfigError, DataError
from seedbed.model.adapters.prompts import Prefixed
from seedbed.model.config import ModelConfig
from seedbed.model.transformer import Transformer
from seedbed.model.vocabulary import grow_vocabulary
from seedbed.progress import progress
from seedbed.tokenizers.chat import Encoded
from seedbed.tokenizers.tokenizer import Tokenizer
from seedbed.training.objective import NextToken, Objective
from seedbed.training.observers.observer import Observer
from seedbed.training.parallel.launch import in_parallel
from seedbed.training.stage import VALIDATION_SEED, Stage, run_stage
from seedbed.tuning.config import FinetuneConfig
from seedbed.tuning.curriculum import Rank, difficulties, lengths
from seedbed.tuning.equipment import build_adapter, equipped, load_base, opened, stage_inputs
from seedbed.tuning.noise import add_noise

Named = tuple[str, Example]
"""What is learned from, behind the name of its file and row."""


@dataclass(frozen=True)
class Conversations:
    """What is learned from, as tokens."""

    encoded: Sequence[Encoded]
    names: Sequence[str]
    """Of each, for messages to people."""
    tokenizer: Tokenizer
    rows: PackedSource
    """The same, packed."""


@dataclass(frozen=True)
class Lesson:
    """What a stage makes of conversations."""

    objective: Objective[TokenBatch]
    source: BatchSource[TokenBatch]
    """Rows to learn from."""
    inputs: Mapping[str, Path] = field(default_factory=dict)
    """Folders that the run is made from besides."""
    begin: Callable[[Transformer], None] = lambda model: None
    """Told the model that learns, when a run begins."""
    saved: Callable[[Transformer], Transformer] = lambda model: model
    """Makes of the trained model the one that is saved."""


def answers_of_text(model: ModelConfig, conversations: Conversations) -> Lesson:
    """Every token that the assistant says, from those before it."""
    return Lesson(NextToken(), conversations.rows)


@in_parallel
def finetune(config: FinetuneConfig, observers: Sequence[Observer] = ()) -> dict[str, Any]:
    """Fine-tunes a model, or an adapter over it; returns the result that `result.json` holds.

    `observers` watch it beside those that the config asks for.
    """
    return tune(config, observers)


def tune(
    config: FinetuneConfig,
    observers: Sequence[Observer],
    name: str = "finetune",
    lesson_of: Callable[[ModelConfig, Conversations], Lesson] = answers_of_text,
) -> dict[str, Any]:
    """A stage that learns from conversations, by the lesson that is made of a model and of them."""
    began = time.perf_counter()
    model, tokenizer = opened(config, _initial)
    length = config.length or min(512, model.config.context)
    if length > model.config.context:
        raise ConfigError(f"length is {length}, longer than the model's context {model.config.context}")
    config = replace(config, length=length).resolve()
    train, held_out = _split(config)
    adapter = build_adapter(config)
    if isinstance(adapter, Prefixed):  # a compiled block would not see what is put into it
        config = replace(config, train=replace(config.train, compile="off"))
    virtual = [] if adapter is None else adapter.virtual_ids(model.config)
    if len(virtual) + 2 > length:
        raise ConfigError(f"prompts.tokens is {len(virtual)}, which leaves no room in a row of {length}", "Give fewer.")

    def as_it_begins() -> Transformer:
        return equipped(_initial(config)[0], config)

    pad_id = tokenizer.pad_id or 0  # padding is a document of its own, which nobody sees: any id does
    overlong: Counter[str] = Counter()

    def packed(conversations: Sequence[Named], source: Path, seed: int, rank: Rank | None = None) -> Conversations:
        encoded, names = _encode(conversations, tokenizer, source)
        if config.overlong != "error":
            encoded, names = _fit(encoded, names, length - len(virtual), config.overlong, overlong)
        ranks = None if rank is None else rank(encoded)
        if virtual:
            ids, mask = np.array(virtual, np.uint32), np.zeros(len(virtual), np.bool_)
            encoded = [(np.concatenate([ids, own]), np.concatenate([mask, learned])) for own, learned in encoded]
        return Conversations(encoded, names, tokenizer, PackedSource(encoded, length, seed, pad_id, names, ranks))

    rank: dict[str, Rank] = {"short_first": lengths, "easy_first": lambda rows: difficulties(as_it_begins(), rows)}
    learned = packed(train, config.data, config.train.seed, rank.get(config.curriculum))
    validation = packed(held_out, config.validation or config.data, VALIDATION_SEED).rows
    lesson = lesson_of(model.config, learned)
    source = lesson.source
    inputs = stage_inputs(config, config.data)
    if config.tokenizer is not None:
        inputs["tokenizer"] = config.tokenizer
    if config.replay.tokens is not None:
        tokens = open_tokens(config.replay.tokens)
        tokens.check(tokenizer)
        source = _with_replay(source, WindowSource(tokens.train, length, config.train.seed), config)
        inputs["replay"] = config.replay.tokens
    inputs |= lesson.inputs

    def starting_model() -> Transformer:
        model = as_it_begins()
        if config.noise is not None:
            add_noise(model, config.noise)
        lesson.begin(model)
        return model

    stage = Stage(
        name=name,
        architecture=model.config,
        model=starting_model,
        tokenizer=tokenizer,
        source=source,
        validation=validation,
        objective=lesson.objective,
        length=length,
        inputs=inputs,
        notes={"overlong": {fate: overlong[fate] for fate in ("dropped", "truncated")}},
        observers=observers,
        saved=lesson.saved,
        began=began,
    )
    return run_stage(stage, config)


def _initial(config: FinetuneConfig) -> tuple[Transformer, Tokenizer]:
    """The model to begin with and the tokenizer to go on with. ConfigError for another one than the model's own, unless
    its vocabulary may grow."""
    tokenizer = None if config.tokenizer is None else Tokenizer.load(config.tokenizer)
    model, own = load_base(config, tokenizer)
    if tokenizer is None:
        return model, own
    if tokenizer.chat_template is None and own.chat_template is not None:
        tokenizer = tokenizer.with_template(own.chat_template)
    if not config.resize_vocabulary and tokenizer.vocab_size != own.vocab_size:
        raise ConfigError(
            f"{config.tokenizer} has {tokenizer.vocab_size:,} tokens, but the model has {own.vocab_size:,}",
            "Give --resize_vocabulary true, and embeddings and head grow for it.",
        )
    return grow_vocabulary(model, own, tokenizer), tokenizer


def _with_replay(
    new: BatchSource[TokenBatch], old: BatchSource[TokenBatch], config: FinetuneConfig
) -> BatchSource[TokenBatch]:
    """The rows of `new`, and among them a share of rows of `old`; an epoch is one of `new`.

    Learning something new overwrites what no longer comes up; going through a little of the old data again keeps it
    (rehearsal: Robins 1995; for language models Ibrahim et al. 2024, arXiv:2403.08763, §4).
    """
    share = config.replay.share
    epoch = math.ceil(new.samples / (1 - share))
    return MixtureSource([new, old], [Phase(0, (1 - share, share))], epoch, config.train.seed)


def _split(config: FinetuneConfig) -> tuple[list[Named], list[Named]]:
    """Training and validation conversations."""
    conversations = _read(config.data)
    if config.validation is not None:
        return conversations, _read(config.validation)
    if len(conversations) < 2:
        raise DataError(f"{config.data} holds one conversation: none is left to validate on", "Give --validation FILE.")

    def place(named: Named) -> bytes:
        return hashlib.sha256(repr(replace(named[1], row=0)).encode("utf-8", "surrogatepass")).digest()

    ordered = sorted(conversations, key=place)
    kept = max(1, round(config.validation_fraction * len(ordered)))
    # Equal conversations hash alike and stay together, so that none is on both sides.
    while kept < len(ordered) - 1 and place(ordered[kept]) == place(ordered[kept - 1]):
        kept += 1
    return ordered[kept:], ordered[:kept]


def _fit(
    encoded: list[Encoded], names: list[str], length: int, fate: str, counts: Counter[str]
) -> tuple[list[Encoded], list[str]]:
    """Conversations that a row can hold: those that are longer are dropped or truncated, and counted."""
    fitting, kept = [], []
    for (ids, mask), name in zip(encoded, names, strict=True):
        truncated = len(ids) > length
        if truncated and (fate == "drop" or not mask[1:length].any()):
            counts["dropped"] += 1
            continue
        counts["truncated"] += truncated
        fitting.append((ids[:length], mask[:length]))
        kept.append(name)
    return fitting, kept


def _read(path: Path) -> list[Named]:
    found = []
    with progress(f"reading {path}", unit="rows") as advance:
        for file in row_files(path):
            for conversation in read_conversations(file):
                found.append((row_name(file, conversation.row), conversation))
                advance(1)
    return found


def _encode(conversations: Sequence[Named], tokenizer: Tokenizer, source: Path) -> tuple[list[Encoded], list[str]]:
    encoded: list[Encoded] = []
    names: list[str] = []
    with progress(f"encoding {source}", total=len(conversations), unit="rows") as advance:
        for name, conversation in conversations:
            with naming(name):
                encoded.append(conversation.encode(tokenizer))
            names.append(name)
            advance(1)
    return encoded, names
