"""Pretraining on plain text: the next token, hidden tokens, or what follows a prefix."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from seedbed.data.batches.batch import TokenBatch
from seedbed.data.batches.loader import WindowSource
from seedbed.data.batches.masking import Masking
from seedbed.data.batches.prefixes import Prefixes
from seedbed.data.batches.training_data import Asking, TrainingData, next_tokens, open_folders
from seedbed.data.tokens import Tokens, open_tokens
from seedbed.devices import choose_device
from seedbed.errors import ConfigError
from seedbed.model.config import ModelConfig
from seedbed.model.depth import table
from seedbed.model.folder import find_model, load_model
from seedbed.model.score_head import refuse_score_head
from seedbed.model.transformer import Transformer
from seedbed.model.vocabulary import grow_vocabulary
from seedbed.tokenizers.tokenizer import Tokenizer
from seedbed.training.config import PretrainConfig
from seedbed.training.consolidation import Consolidated, OldText
from seedbed.training.depth import follow_depth
from seedbed.training.objective import NextToken, Objective, TargetTokens
from seedbed.training.observers.observer import Observer
from seedbed.training.parallel.launch import in_parallel
from seedbed.training.parallel.world import World
from seedbed.training.precision import MASTER, Precision
from seedbed.training.selection import Selected
from seedbed.training.stage import VALIDATION_SEED, Stage, run_stage


@in_parallel
def pretrain(config: PretrainConfig, observers: Sequence[Observer] = ()) -> dict[str, Any]:
    """Trains a model on the tokens of one folder or more; returns the result that `result.json` holds.

    `observers` watch it beside those that the config asks for.
    """
    began = time.perf_counter()
    if config.resize_vocabulary and config.init is None:
        raise ConfigError("resize_vocabulary needs init", "A fresh model has the vocabulary of its tokens as it is.")
    folders = open_folders(config.data, config.verify)
    tokenizer = folders[0].tokenizer
    names = ["tokens"] if len(folders) == 1 else [f"tokens {number}" for number in range(1, len(folders) + 1)]
    inputs = dict(zip(names, (part.tokens for part in config.data.parts), strict=True))
    asked = config.model
    if config.init is None:
        config = replace(config, model=asked.with_tokenizer(tokenizer))
    else:
        initial, tokenizer = _initial(config, tokenizer)
        folders[0].check(tokenizer)
        _refuse_architecture(config.model, initial.config, config.init)
        inputs["init"] = find_model(config.init)
        config = replace(config, model=initial.config)
    _refuse_objective(config.objective, config.model)
    _refuse_pieces(config)
    # Verifying has done its work: it is no part of what the run is, which goes on with or without.
    config = replace(config, verify=False)
    length = config.data.length or config.model.context
    if length > config.model.context:
        raise ConfigError(
            f"data.length is {length}, longer than model.context {config.model.context}",
            "Shorten data.length or lengthen model.context.",
        )
    config, derived = follow_depth(config, asked, folders, length)
    if derived and World.here().leads:
        print(table(derived))

    asking = _asking(config, tokenizer)
    data = TrainingData(config.data, folders, length, config.train.seed, asking)
    # The bytes behind a few hidden tokens say nothing about a text: bits per byte are for those that predict it whole.
    token_bytes = torch.from_numpy(tokenizer.token_bytes())
    objective: Objective[TokenBatch] = TargetTokens() if config.objective == "masked" else NextToken(token_bytes)
    held = None
    if config.consolidation.tokens is not None:
        old = open_tokens(config.consolidation.tokens)
        old.check(tokenizer)
        old_rows = WindowSource(old.train, length, config.train.seed, isolate=config.data.packing != "concatenate")
        inputs["consolidation"] = config.consolidation.tokens
        roles = {role: inputs[role] for role in ("init", "consolidation")}
        old_text = OldText(asking(old_rows, config.train.seed), config.consolidation.rows, config.train.seed, roles)
        objective = held = Consolidated(objective, config.consolidation.strength)

    schedule, candidates = config.train.batch_schedule, config.selection.candidates
    source, selected = data.source(schedule.first), None
    if config.selection.reference is not None:
        inputs["reference"] = find_model(config.selection.reference)
        reference = _reference(inputs["reference"], folders[0], config.model, length)
        source = selected = Selected(
            data.source(lambda step: candidates * schedule.first(step)), reference, candidates, schedule
        )
    device = choose_device(config.train.device)

    def starting_model() -> Transformer:
        if config.init is not None:
            model = _initial(config, tokenizer)[0]
        else:
            torch.manual_seed(config.train.seed)
            model = Transformer(config.model)
        if selected is not None:
            selected.score_by(model, Precision(config.train.precision, device))
        if held is not None:
            held.hold(model.to(device), old_text.fisher(config.out, model))
        return model

    stage = Stage(
        name="pretrain",
        architecture=config.model,
        model=starting_model,
        tokenizer=tokenizer,
        source=source,
        validation=data.validation(VALIDATION_SEED),
        objective=objective,
        length=length,
        phases=[phase.from_step for phase in config.data.lengths] or [0],
        inputs=inputs,
        notes=data.notes | ({"derived": {item.key: item.value for item in derived}} if derived else {}),
        observers=observers,
        began=began,
    )
    return run_stage(stage, config)


def _asking(config: PretrainConfig, tokenizer: Tokenizer) -> Asking:
    """What the objective does to rows."""
    if config.objective == "masked":
        return lambda source, seed: Masking(source, tokenizer, config.masked_share, seed)
    return Prefixes if config.objective == "prefix" else next_tokens


def _reference(folder: Path, tokens: Tokens, model: ModelConfig, length: int) -> Transformer:
    """The model that tells noise from what can be learned; ConfigError when it cannot read the same rows."""
    reference, tokenizer = load_model(folder, tokenizer=tokens.tokenizer)
    tokens.check(tokenizer)
    if reference.config.causal != model.causal or reference.config.context < length:
        raise ConfigError(
            f"selection.reference {folder} cannot score these rows: it has model.causal {reference.config.causal} and "
            f"a context of {reference.config.context}, the rows are {length} long",
            "Take one of the same objective and at least the same context.",
        )
    return reference


def _refuse_objective(objective: str, model: ModelConfig) -> None:
    """ConfigError when a model cannot learn so."""
    refuse_score_head(model)
    if objective == "masked" and model.causal:
        raise ConfigError(
            "the objective masked needs a model that reads both ways, and model.causal is true",
            "Give --model.causal false; a causal model that training starts from stays causal.",
        )
    if objective != "masked" and not model.causal:
        raise ConfigError(
            f"the objective {objective} needs a causal model, and model.causal is false",
            "Give --objective masked for a model that reads both ways.",
        )


def _initial(config: PretrainConfig, tokenizer: Tokenizer) -> tuple[Transformer, Tokenizer]:
    """The model that training starts from and its tokenizer, or, where its vocabulary grows, that of the tokens."""
    assert config.init is not None
    initial, own = load_model(config.init, dtype=MASTER, tokenizer=tokenizer, learns=True)
    if not config.resize_vocabulary or tokenizer.vocab_size == own.vocab_size:
        return initial, own
    if tokenizer.chat_template is None and own.chat_template is not None:
        tokenizer = tokenizer.with_template(own.chat_template)
    return grow_vocabulary(initial, own, tokenizer), tokenizer


def _refuse_pieces(config: PretrainConfig) -> None:
    """ConfigError when each process would hold a piece of what has to be whole."""
    divided = config.train.parallel == "fsdp" or config.train.tensor_parallel > 1
    for key, asked in (("consolidation", config.consolidation.tokens), ("selection", config.selection.reference)):
        if divided and asked is not None:
            raise ConfigError(
                f"{key} needs the whole model in each process, and train divides it",
                "Take --train.parallel ddp or zero1, without --train.tensor_parallel.",
            )


def _refuse_architecture(asked: ModelConfig, own: ModelConfig, init: Path) -> None:
    """ConfigError when another architecture is asked for than the initial weights have. A key that has its default is
    as good as left out."""
    for field in fields(ModelConfig):
        value, given = getattr(own, field.name), getattr(asked, field.name)
        if given not in (field.default, value):
            raise ConfigError(
                f"model.{field.name} is {given}, but the model that training starts from, {init}, has {value}",
                "Leave the keys of model out: --init brings its architecture.",
            )
