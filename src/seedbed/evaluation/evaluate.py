"""`seedbed evaluate`: run tasks over a model and write a report folder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedbed.configuration import to_dict
from seedbed.data.corpus import Corpus
from seedbed.devices import choose_device
from seedbed.errors import DataError
from seedbed.evaluation.config import EvaluateConfig
from seedbed.evaluation.likelihood import measure_likelihood
from seedbed.evaluation.refusals import REQUESTS, read_pairs, score_refusals
from seedbed.evaluation.skills import QUESTIONS, read_items, score_skills
from seedbed.inference.engine import Engine
from seedbed.model.folder import find_model, tell_unfinished
from seedbed.runs import MANIFEST, new_folder, words, write_card, write_json, write_result
from seedbed.shards import write_rows


@dataclass(frozen=True)
class Measured:
    """What one task found."""

    result: dict[str, Any]
    """Numbers, for result.json."""
    samples: list[dict[str, Any]]
    """Single items, for those who want to look: written to TASK.jsonl."""


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Runs the tasks; writes report.json, the samples of each task, and a card. Returns the numbers by task."""
    sources = {task: _source(task, config.data_dir) for task in config.tasks}  # a missing file ends it before the work
    tell_unfinished(config.model)
    began = time.perf_counter()
    inputs = {"model": find_model(config.model), **{f"data of {task}": source for task, source in sources.items()}}
    settings = {key: to_dict(config)[key] for key in ("tasks", "max_bytes", "weights")}
    with new_folder(config.out, "report", inputs=inputs, config=settings) as staging:
        engine = Engine.load(config.model, device=choose_device(config.device), weights=config.weights)
        measured = {task: MEASUREMENTS[task](engine, source, config) for task, source in sources.items()}
        numbers = {task: found.result for task, found in measured.items()}
        write_json(staging / "report.json", numbers)
        for task, found in measured.items():
            write_rows(staging / f"{task}.jsonl", found.samples)
        write_card(staging, f"Report on {config.model}", {task: _points(found) for task, found in numbers.items()})
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
    for folder in (data_dir, data_dir / "corpus"):
        if (folder / MANIFEST).is_file():
            return folder
    raise DataError(
        f"the task bits_per_byte needs a corpus folder: {data_dir} or {data_dir / 'corpus'}",
        "seedbed prepare makes one.",
    )


def _skills(engine: Engine, source: Path, config: EvaluateConfig) -> Measured:
    scores = score_skills(engine, read_items(source), batch=config.batch)
    numbers: dict[str, Any] = {"skills_exact": scores.skills_exact, "by_skill": scores.by_skill}
    if scores.second_turn_exact is not None:
        numbers["second_turn_exact"] = scores.second_turn_exact
    numbers["second_turns_left_out"] = scores.second_turns_left_out
    return Measured(numbers, list(scores.answers))


def _bits_per_byte(engine: Engine, source: Path, config: EvaluateConfig) -> Measured:
    texts = [document.text for document in Corpus.open(source).documents("val")]
    found = measure_likelihood(engine.model, engine.tokenizer, texts, max_bytes=config.max_bytes, batch=config.batch)
    numbers = {"bits_per_byte": found.bits_per_byte, "perplexity": found.perplexity, "bytes": found.bytes}
    return Measured({**numbers, "tokens": found.tokens}, [])


def _refusals(engine: Engine, source: Path, config: EvaluateConfig) -> Measured:
    return Measured(*score_refusals(engine, read_pairs(source)))


MEASUREMENTS = {"skills": _skills, "bits_per_byte": _bits_per_byte, "refusals": _refusals}


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
