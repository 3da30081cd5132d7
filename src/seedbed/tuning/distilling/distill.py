"""`seedbed distill`: supervised fine-tuning whose targets are a teacher's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from seedbed.data.batches.batch import BatchSource, TokenBatch
from seedbed.errors import ConfigError
from seedbed.model.config import ModelConfig
from seedbed.model.folder import find_model, load_model, tell_unfinished
from seedbed.tokenizers.tokenizer import Tokenizer
from seedbed.training.objective import refuse_both_ways
from seedbed.training.observers.observer import Observer
from seedbed.training.parallel.launch import in_parallel
from seedbed.tuning.distilling.config import DistillConfig
from seedbed.tuning.distilling.objective import Distillation
from seedbed.tuning.distilling.own_answers import OwnAnswers, prompts_of
from seedbed.tuning.finetune import Begin, Conversations, as_they_are, tune

PAIR = re.compile(r"(\d+):(\d+)")


@in_parallel
def distill(config: DistillConfig, observers: Sequence[Observer] = ()) -> dict[str, Any]:
    """Trains a student; returns the result that `result.json` holds."""
    tell_unfinished(config.teacher)

    def objective(student: ModelConfig, tokenizer: Tokenizer, length: int) -> Distillation:
        teacher, own = load_model(config.teacher)
        refuse_both_ways(teacher.config)
        _refuse_unlike(config, student, teacher.config)
        if own.with_template("").hash != tokenizer.with_template("").hash:
            raise ConfigError(f"teacher {config.teacher} has another tokenizer than the student")
        if teacher.config.context < length:
            context = teacher.config.context
            raise ConfigError(f"teacher {config.teacher} has a context of {context}, the rows are {length} long")
        pairs = read_pairs(config.distillation.layers, student.layers, teacher.config.layers)
        return Distillation(teacher, pairs, config.distillation)

    def with_own_answers(conversations: Conversations) -> tuple[BatchSource[TokenBatch], Begin]:
        rows, prompts = conversations.rows, prompts_of(conversations.encoded, conversations.names)
        placed = {"length": rows.length, "seed": rows.seed, "pad_id": rows.pad_id}
        own = OwnAnswers(prompts, conversations.tokenizer, config.on_policy, **placed)
        return own.among(rows), own.learn

    sourced = with_own_answers if config.on_policy.share else as_they_are
    return tune(config, observers, "distill", objective, {"teacher": find_model(config.teacher)}, sourced)


def read_pairs(texts: Sequence[str], student: int, teacher: int) -> list[tuple[int, int]]:
    """What STUDENT:TEACHER say, of models of so many blocks; the last of both if there are none. ConfigError for what
    is no pair, or names a block that is not there."""
    pairs = []
    for text in texts or [f"{student - 1}:{teacher - 1}"]:
        if (found := PAIR.fullmatch(text)) is None:
            raise ConfigError(f"distillation.layers: {text!r} is not STUDENT:TEACHER", 'Such as "1:3".')
        ours, theirs = int(found[1]), int(found[2])
        if ours >= student or theirs >= teacher:
            raise ConfigError(f"distillation.layers: {text!r}, but blocks go up to {student - 1}:{teacher - 1}")
        pairs.append((ours, theirs))
    return pairs


def _refuse_unlike(config: DistillConfig, student: ModelConfig, teacher: ModelConfig) -> None:
    if student.experts:
        raise ConfigError("a mixture of experts cannot be a student: nothing here keeps its routers balanced")
    if teacher.vocab_size != student.vocab_size:
        raise ConfigError(
            f"teacher {config.teacher} has {teacher.vocab_size:,} tokens, the student {student.vocab_size:,}"
        )
    if config.distillation.hidden and teacher.width != student.width:
        raise ConfigError(
            f"distillation.hidden compares states of one width: the teacher's is {teacher.width}, the student's "
            f"{student.width}",
            "Leave distillation.hidden out.",
        )
