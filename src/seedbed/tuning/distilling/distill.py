"""`seedbed distill`: supervised fine-tuning whose targets are a teacher's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from seedbed.errors import ConfigError, DataError
from seedbed.model.config import ModelConfig
from seedbed.model.folder import find_model, load_model, tell_unfinished
from seedbed.model.transformer import Transformer
from seedbed.model.weights import not_finite
from seedbed.training.objective import refuse_both_ways
from seedbed.training.observers.observer import Observer
from seedbed.training.parallel.launch import in_parallel
from seedbed.tuning.distilling.config import DistillConfig
from seedbed.tuning.distilling.objective import Distillation
from seedbed.tuning.distilling.own_answers import OwnAnswers, prompts_of
from seedbed.tuning.distilling.projections import put_projections, without_projections
from seedbed.tuning.finetune import Conversations, Lesson, tune

PAIR = re.compile(r"(\d+):(\d+)")


@in_parallel
def distill(config: DistillConfig, observers: Sequence[Observer] = ()) -> dict[str, Any]:
    """Trains a student; returns the result that `result.json` holds."""
    tell_unfinished(config.teacher)

    def lesson(student: ModelConfig, conversations: Conversations) -> Lesson:
        teacher = _teacher(config, student, conversations)
        pairs = read_pairs(config.distillation.layers, student.layers, teacher.config.layers)
        own = _own_answers(config, conversations) if config.on_policy.share else None

        def begin(model: Transformer) -> None:
            if config.distillation.hidden and teacher.config.width != student.width:
                put_projections(model, len(pairs), teacher.config.width, config.train.seed)
            if own is not None:
                own.learn(model)

        return Lesson(
            objective=Distillation(teacher, pairs, config.distillation),
            source=conversations.rows if own is None else own.among(conversations.rows),
            inputs={"teacher": find_model(config.teacher)},
            begin=begin,
            saved=without_projections,
        )

    return tune(config, observers, "distill", lesson)


def _teacher(config: DistillConfig, student: ModelConfig, conversations: Conversations) -> Transformer:
    """ConfigError for one that this student cannot learn from."""
    teacher, own = load_model(config.teacher)
    refuse_both_ways(teacher.config)
    if broken := not_finite(dict(teacher.named_parameters())):
        raise DataError(f"teacher {config.teacher}: {broken} holds what is no number: the model is broken")
    _refuse_unlike(config, student, teacher.config)
    if own.with_template("").hash != conversations.tokenizer.with_template("").hash:
        raise ConfigError(f"teacher {config.teacher} has another tokenizer than the student")
    context, length = teacher.config.context, conversations.rows.length
    if context < length:
        raise ConfigError(f"teacher {config.teacher} has a context of {context}, the rows are {length} long")
    return teacher


def _own_answers(config: DistillConfig, conversations: Conversations) -> OwnAnswers:
    """What the student will say to the prompts of conversations."""
    rows, prompts = conversations.rows, prompts_of(conversations.encoded, conversations.names)
    placed = {"length": rows.length, "seed": rows.seed, "pad_id": rows.pad_id}
    return OwnAnswers(prompts, conversations.tokenizer, config.on_policy, **placed)


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
    divided = config.train.parallel == "fsdp" or config.train.tensor_parallel > 1
    if config.distillation.hidden and teacher.width != student.width and divided:
        raise ConfigError(
            f"distillation.hidden: the teacher's states are {teacher.width} wide, the student's {student.width}, and "
            "what maps the ones on the others stays whole, which fsdp and tensor_parallel do not",
            "Take ddp or zero1.",
        )
