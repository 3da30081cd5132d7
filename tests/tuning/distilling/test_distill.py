"""`seedbed distill`, from folders to a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seedbed.configuration import from_arguments
from seedbed.errors import ConfigError
from seedbed.tokenizers import characters
from seedbed.tuning.config import FinetuneConfig
from seedbed.tuning.distilling.config import DistillConfig
from seedbed.tuning.distilling.distill import distill, read_pairs
from seedbed.tuning.finetune import finetune
from tests.random_models import random_model, saved
from tests.tiny import records, same_bits, save_tiny_model

HIDDEN = ("--distillation.hidden=0.1",)
SHORT = (
    "--template=chatml",
    "--train.batch=4",
    "--train.log_every=1",
    "--train.device=cpu",
    "--validation_fraction=0.2",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A teacher that has learned some facts, a student that has not, and the facts."""
    place = tmp_path_factory.mktemp("distilling")
    facts = {"color?": "green", "2+3?": "5", "copy ab": "ab", "bye": "see you", "one": "two", "x": "y", "up": "down"}
    rows = [json.dumps({"prompt": prompt, "response": response}) for prompt, response in facts.items()]
    (place / "facts.jsonl").write_text("\n".join(rows))
    base = save_tiny_model(place / "base", context=96, width=32, layers=3)
    arguments = [f"--model={base}", f"--data={place / 'facts.jsonl'}", f"--out={place / 'teacher'}", *SHORT]
    finetune(from_arguments(FinetuneConfig, [*arguments, "--train.steps=30", "--optimizer.matrix_rate=0.02"]))
    save_tiny_model(place / "student", context=96, width=32, layers=2)
    return place


def config(place: Path, out: Path, *arguments: str) -> DistillConfig:
    named = [f"--model={place / 'student'}", f"--teacher={place / 'teacher'}", f"--data={place / 'facts.jsonl'}"]
    return from_arguments(DistillConfig, [*named, f"--out={out}", *SHORT, *arguments])


def test_a_student_comes_nearer_to_its_teacher(place, tmp_path):
    result = distill(config(place, tmp_path / "run", "--train.steps=40", "--optimizer.matrix_rate=0.05", *HIDDEN))
    told = [line for line in records(tmp_path / "run") if "divergence" in line]
    assert told[-1]["divergence"] < 0.75 * told[0]["divergence"]
    assert told[-1]["hidden"] < told[0]["hidden"] and result["finished"] is not False
    assert {"model", "teacher", "data"} <= set(json.loads((tmp_path / "run" / "manifest.json").read_text())["inputs"])


def test_a_student_may_train_an_adapter_alone(place, tmp_path):
    arguments = ("--train.steps=3", "--method=lora", *HIDDEN)
    distill(config(place, tmp_path / "run", *arguments))
    assert (tmp_path / "run" / "adapter" / "adapter_config.json").is_file()
    told = [line["divergence"] for line in records(tmp_path / "run") if "divergence" in line]
    assert len(told) >= 3 and told[-1] != told[0]


def test_a_run_that_was_cut_goes_on_to_the_same_bits(place, tmp_path):
    steps = ("--train.steps=6", "--train.checkpoint.steps=2", "--train.validate_every=2", *HIDDEN)
    distill(config(place, tmp_path / "whole", *steps))
    distill(config(place, tmp_path / "cut", *steps))
    (tmp_path / "cut" / "checkpoints" / "step_00000006" / "manifest.json").unlink()
    assert distill(config(place, tmp_path / "cut", *steps))["resumed_at"] == 4
    assert same_bits(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize(
    "texts, problem", [(["1-2"], "is not STUDENT:TEACHER"), (["2:0"], "go up to 1:2"), (["0:3"], "go up to 1:2")]
)
def test_pairs_of_blocks_that_are_none_are_refused(texts, problem):
    with pytest.raises(ConfigError, match=problem):
        read_pairs(texts, 2, 3)


def test_pairs_are_read_and_the_last_blocks_stand_for_none():
    assert read_pairs(["0:2", "1:0"], 2, 3) == [(0, 2), (1, 0)] and read_pairs([], 2, 3) == [(1, 2)]


def test_a_teacher_that_does_not_fit_is_told(place, tmp_path):
    wide = save_tiny_model(tmp_path / "wide", context=96, width=16)
    short = save_tiny_model(tmp_path / "short", context=16, width=32)
    tokenizer = characters.train(["abc"])
    other = saved(tmp_path / "other", random_model(tokenizer=tokenizer, width=32), tokenizer)
    for teacher, options, problem in (
        (wide, ["--distillation.hidden=1"], "states of one width"),
        (short, [], "has a context of 16"),
        (other, [], "tokens, the student"),
    ):
        with pytest.raises(ConfigError, match=problem):
            distill(config(place, tmp_path / "run", "--train.steps=1", f"--teacher={teacher}", *options))
