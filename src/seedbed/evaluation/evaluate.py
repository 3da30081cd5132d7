"""`seedbed evaluate`: run tasks over a model and write a report folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from seedbed.configuration import to_dict
from seedbed.data.corpus import Corpus
from seedbed.devices import choose_device
from seedbed.errors import DataError
from seedbed.evaluation.answers import GOLD, Answered, ask, read_questions
from seedbed.evaluation.config import EvaluateConfig
from seedbed.evaluation.likelihood import measure_likelihood
from seedbed.evaluation.refusals import REQUESTS, read_pairs, score_refusals
from seedbed.evaluation.skills import QUESTIONS, read_items, score_skills
from seedbed.inference.config import EngineConfig
from seedbed.inference.engine import Engine
from seedbed.model.folder import find_model, tell_unfinished
from seedbed.runs import MANIFEST, new_folder, words, write_card, write_json, write_result
from seedbed.shards import write_rows

SHOWN = 5
"""Samples in a card."""
TASKS = "Leave bits_per_byte out: --tasks skills."


@dataclass(frozen=True)
class Measured:
    """What one task found."""

    result: dict[str, Any]
    """Numbers, for result.json."""
    samples: list[dict[str, Any]]
    """Single items, for those who want to look: written to TASK.jsonl."""
    shown: list[str] = field(default_factory=list)
    """Some of them, for the card."""


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Runs the tasks; writes report.json, the samples of each task, and a card. Returns the numbers by task."""
    sources = {task: _source(task, config.data_dir) for task in config.tasks}  # a missing file ends it before the work
    tell_unfinished(config.model)
    began = time.perf_counter()
    inputs = {"model": find_model(config.model), **{f"data of {task}": source for task, source in sources.items()}}
    settings = {key: to_dict(config)[key] for key in ("tasks", "max_bytes", "weights", "longest_answer")}
    with new_folder(config.out, "report", inputs=inputs, config=settings) as staging:
        rows = EngineConfig(rows=config.batch)
        engine = Engine.load(config.model, device=choose_device(config.device), weights=config.weights, config=rows)
        measured = {task: MEASUREMENTS[task](engine, source, config) for task, source in sources.items()}
        numbers = {task: found.result for task, found in measured.items()}
        write_json(staging / "report.json", numbers)
        for task, found in measured.items():
            write_rows(staging / f"{task}.jsonl", found.samples)
        write_card(
            staging,
            f"Report on {config.model}",
            {task: _points(found.result) + found.shown for task, found in measured.items()},
        )
        write_result(staging, {"tasks": numbers, "seconds": round(time.perf_counter() - began, 2)})
    return {"tasks": numbers, "report": str(config.out)}


def _source(task: str, data_dir: Path) -> Path:
    """The file or folder below `data_dir` that a task reads. DataError when it is not there."""
    if task == "skills":
        for file in (data_dir / QUESTIONS, data_dir / "questions" / QUESTIONS):
            if file.is_file():
                return file
        raise DataError(f"the task skills needs {data_dir / QUESTIONS}", "seedbed quickstart writes one.")
    if task == "refusals":
        if (data_dir / REQUESTS).is_file():
            return data_dir / REQUESTS
        raise DataError(f"the task refusals needs {data_dir / REQUESTS}", "A row is {harmful, harmless}.")
    if task == "answers":
        if (data_dir / GOLD).is_file():
            return data_dir / GOLD
        raise DataError(f"the task answers needs {data_dir / GOLD}: conversations", "Any shape that finetune reads.")
    for folder in (data_dir, data_dir / "corpus"):
        if (folder / MANIFEST).is_file():
            return folder
    raise DataError(
        f"the task bits_per_byte needs a corpus folder: {data_dir} or {data_dir / 'corpus'}",
        "seedbed prepare makes one.",
    )


def _skills(engine: Engine, source: Path, config: EvaluateConfig) -> Measured:
    scores = score_skills(engine, read_items(source))
    numbers: dict[str, Any] = {"skills_exact": scores.skills_exact, "by_skill": scores.by_skill}
    if scores.second_turn_exact is not None:
        numbers["second_turn_exact"] = scores.second_turn_exact
    numbers["second_turns_left_out"] = scores.second_turns_left_out
    return Measured(numbers, list(scores.answers))


def _bits_per_byte(engine: Engine, source: Path, config: EvaluateConfig) -> Measured:
    if engine.model.virtual_ids:
        raise DataError("bits_per_byte is of plain text, before which this model has learned to see something", TASKS)
    texts = [document.text for document in Corpus.open(source).documents("val")]
    found = measure_likelihood(engine.model, engine.tokenizer, texts, max_bytes=config.max_bytes, batch=config.batch)
    numbers = {"bits_per_byte": found.bits_per_byte, "perplexity": found.perplexity, "bytes": found.bytes}
    return Measured({**numbers, "tokens": found.tokens}, [])


def _refusals(engine: Engine, source: Path, config: EvaluateConfig) -> Measured:
    return Measured(*score_refusals(engine, read_pairs(source)))


def _answers(engine: Engine, source: Path, config: EvaluateConfig) -> Measured:
    questions, left_out = read_questions(source, engine)
    answered = ask(engine, questions, longest=config.longest_answer)
    numbers = {
        "exact": sum(each.exact for each in answered) / len(answered),
        "f1": sum(each.f1 for each in answered) / len(answered),
        "questions": len(answered),
        "left_out": left_out,
    }
    return Measured(numbers, [asdict(each) for each in answered], _shown(answered))


def _shown(answered: Sequence[Answered]) -> list[str]:
    """A few, evenly from the best to the worst."""
    ordered = sorted(answered, key=lambda each: -each.f1)
    count = min(SHOWN, len(ordered))
    shown = [ordered[number * (len(ordered) - 1) // max(1, count - 1)] for number in range(count)]
    return [f"F1 {each.f1:.2f}: {each.prompt!r} → {each.given!r}; gold {each.gold!r}" for each in shown]


MEASUREMENTS = {"skills": _skills, "bits_per_byte": _bits_per_byte, "refusals": _refusals, "answers": _answers}


def _points(numbers: dict[str, Any]) -> list[str]:
    points = []
    for key, value in numbers.items():
        if isinstance(value, dict):
            points += [
                f"{words.name(key)}, {words.name(part)}: {words.value(number)}" for part, number in value.items()
            ]
        else:
            points.append(f"{words.name(key)}: {words.value(value)}")
    return points
