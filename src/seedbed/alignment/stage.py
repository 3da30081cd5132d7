"""What the stages that learn from people's judgements of answers have in common: how they begin, and what they hand to
the one loop."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from torch import nn

from seedbed.alignment.answers import encode_answers, fit, refuse_alike, row_length
from seedbed.alignment.config import AnswersConfig
from seedbed.alignment.reference import Reference
from seedbed.alignment.source import AnswerBatch, AnswerRow, AnswerSource
from seedbed.data.preferences import Preference
from seedbed.devices import choose_device
from seedbed.errors import DataError
from seedbed.model.config import ModelConfig
from seedbed.model.transformer import Transformer
from seedbed.progress import progress
from seedbed.tokenizers.tokenizer import Tokenizer
from seedbed.training.objective import Objective
from seedbed.training.observers.observer import Observer
from seedbed.training.precision import Precision
from seedbed.training.stage import VALIDATION_SEED, Stage, run_stage
from seedbed.tuning.equipment import base_inputs, equipped, load_base, opened, stage_inputs

C = TypeVar("C", bound=AnswersConfig)


@dataclass(frozen=True)
class Beginning(Generic[C]):
    """Where a run begins."""

    config: C
    """Resolved."""
    architecture: ModelConfig
    tokenizer: Tokenizer
    began: float
    """On the clock of `time.perf_counter`."""
    load: Callable[[C], tuple[Transformer, Tokenizer]]
    """The model to begin with and its tokenizer: the same weights at every call."""
    counts: Counter[str] = field(default_factory=Counter)
    """Rows that were left out or cut, by reason."""

    @property
    def length(self) -> int:
        """Tokens of a row."""
        assert self.config.length is not None  # it is resolved
        return self.config.length


def begin(config: C, load: Callable[[C], tuple[Transformer, Tokenizer]] = load_base) -> Beginning[C]:
    """Opens the model that a run is to begin with, as `load` does. ConfigError when it cannot learn from answers."""
    began = time.perf_counter()
    model, tokenizer = opened(config, load)
    config = replace(config, length=row_length(config.length, model.config)).resolve()
    return Beginning(config, model.config, tokenizer, began, load)


def without_dropout(model: Transformer) -> Transformer:
    """The same model, which with dropout would find an answer more or less likely at each look."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model.config = replace(model.config, dropout=0.0)
    return model


def encode_preferences(rows: Sequence[Preference], beginning: Beginning[Any]) -> list[AnswerRow]:
    """Both answers of each preference behind its prompt, the better one first, and its margin, nan where it tells none.
    What is left out is counted. DataError, naming the row, for what cannot be learned from."""
    config, counts, found = beginning.config, beginning.counts, []
    with progress("encoding", total=len(rows), unit="rows") as advance:
        for row in rows:
            advance(1)
            answered = encode_answers(beginning.tokenizer, row.name, row.prompt, (row.chosen, row.rejected))
            if refuse_alike(answered, config.useless, counts):
                continue
            fitting = fit(answered, beginning.length, config.overlong, counts)
            if fitting is not None:
                found.append(
                    AnswerRow(
                        tuple(map(fitting.whole, fitting.answers)), (math.nan if row.margin is None else row.margin,)
                    )
                )
    return found


def run_answers(
    name: str,
    beginning: Beginning[Any],
    rows: Sequence[Sequence[AnswerRow]],
    objective: Objective[AnswerBatch],
    *,
    compares: bool = False,
    group: int = 1,
    observers: Sequence[Observer] = (),
) -> dict[str, Any]:
    """Trains on the first of two lists of rows, validates on the second. `compares`: with what the model as it begins
    makes of them. `group`: rows of one sample."""
    config, tokenizer = beginning.config, beginning.tokenizer
    for part, what in zip(rows, ("to learn from", "to validate on"), strict=True):
        if not part:
            why = ", ".join(f"{reason} {count:,}" for reason, count in beginning.counts.items())
            raise DataError(f"{config.data}: no row is left {what} ({why})")
    sources = {
        part: AnswerSource(
            part_rows,
            seed=seed,
            pad_id=tokenizer.pad_id or 0,  # nobody sees padding: any id does
            length=beginning.length,
            packing=config.packing,
            group=group,
        )
        for part, part_rows, seed in zip(
            ("train", "validation"), rows, (config.train.seed, VALIDATION_SEED), strict=True
        )
    }
    device = choose_device(config.train.device)

    def starting_model() -> Transformer:
        model = without_dropout(equipped(beginning.load(config)[0], config))
        if compares:
            at_once = group * (config.train.micro_batch or config.train.batch)
            precision = Precision(config.train.precision, device)
            Reference(config.out, base_inputs(config), precision, at_once).tell(model.to(device), sources)
        return model

    stage = Stage(
        name=name,
        architecture=beginning.architecture,
        model=starting_model,
        tokenizer=tokenizer,
        source=sources["train"],
        validation=sources["validation"],
        objective=objective,
        length=beginning.length,
        inputs=stage_inputs(config, config.data),
        notes={
            "rows": {part: len(source.rows) for part, source in sources.items()},
            "left_out": dict(beginning.counts),
        },
        observers=observers,
        began=beginning.began,
    )
    return run_stage(stage, config)
