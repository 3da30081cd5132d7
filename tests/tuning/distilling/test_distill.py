"""`seedbed distill`, from folders to a run."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from seedbed.configuration import from_arguments
from seedbed.errors import ConfigError, DataError, TrainingError
from seedbed.model.folder import load_model, save_model
from seedbed.tokenizers import characters
from seedbed.training.observers.observer import Observer
from seedbed.tuning.config import FinetuneConfig
from seedbed.tuning.distilling import distill as distilling
from seedbed.tuning.distilling.config import DistillConfig
from seedbed.tuning.distilling.distill import distill, read_pairs
from seedbed.tuning.finetune import finetune
from tests.end_to_end.commands import seedbed_in
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


def test_a_teacher_of_broken_weights_teaches_nothing(place, tmp_path):
    teacher, tokenizer = load_model(place / "teacher")
    with torch.no_grad():
        teacher.blocks[1].attention.query.weight[0, 0] = math.nan
    save_model(tmp_path / "broken", teacher, tokenizer, inputs={}, card={})
    with pytest.raises(DataError, match=r"broken: .*query.weight holds what is no number"):
        distill(config(place, tmp_path / "run", "--train.steps=1", f"--teacher={tmp_path / 'broken'}"))


def test_a_run_in_which_no_step_could_be_taken_fails(place, tmp_path):
    """Its logits are all alike at that temperature, and its divergence times the square of it is no number."""
    with pytest.raises(TrainingError, match="none of the 2 steps had a gradient that is a number"):
        distill(config(place, tmp_path / "run", "--train.steps=2", "--distillation.temperature=1e30"))
    assert not (tmp_path / "run" / "model").exists()


def test_a_teacher_that_does_not_fit_is_told(place, tmp_path):
    wide, divided = save_tiny_model(tmp_path / "wide", context=96, width=16), "--train.parallel=fsdp"
    short = save_tiny_model(tmp_path / "short", context=16, width=32)
    tokenizer = characters.train(["abc"])
    other = saved(tmp_path / "other", random_model(tokenizer=tokenizer, width=32), tokenizer)
    for teacher, options, problem in (
        (wide, [divided, "--distillation.hidden=1"], "the teacher's states are 16 wide, the student's 32"),
        (short, [], "has a context of 16"),
        (other, [], "tokens, the student"),
    ):
        with pytest.raises(ConfigError, match=problem):
            distill(config(place, tmp_path / "run", "--train.steps=1", f"--teacher={teacher}", *options))


@pytest.mark.parametrize("method", ["prompt", "prefix", "p_tuning"])
def test_what_stands_before_texts_is_no_student(method, place, tmp_path):
    arguments = (f"--model={place / 'student'}", f"--teacher={place / 'base'}", f"--data={place / 'facts.jsonl'}")
    with pytest.raises(ConfigError, match="and the teacher reads the same text"):
        distill(from_arguments(DistillConfig, [*arguments, f"--out={tmp_path / 'run'}", *SHORT, f"--method={method}"]))


class Death(Observer):
    def __init__(self, step: int):
        self.step = step

    def after_step(self, trainer, report):
        if trainer.progress.step == self.step:
            raise KeyboardInterrupt


def outcome(run: Path) -> list[bytes]:
    """Every byte of what was learned, and of the metrics."""
    return [path.read_bytes() for path in (*sorted(run.glob("[am]*/*.safetensors")), run / "metrics.jsonl")]


# Teachers of another width --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide(place) -> Path:
    return save_tiny_model(place / "wide", context=96, width=48, layers=3)


MAPPED = ("--distillation.hidden=1", '--distillation.layers=["0:1", "1:2"]', "--optimizer.matrix_rate=0.02")


@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_maps_states_on_wider_ones_learns_and_is_no_part_of_the_student(method, place, wide, tmp_path):
    settings = (f"--teacher={wide}", *MAPPED, "--train.steps=20", f"--method={method}")
    distill(config(place, tmp_path / "run", *settings))
    told = [line["hidden"] for line in records(tmp_path / "run") if "hidden" in line]
    assert told[-1] < 0.9 * told[0]
    made = next((tmp_path / "run").glob("[am]*/*.safetensors"))
    assert not [name for name in load_file(made) if "beside" in name]
    load_model(tmp_path / "run")  # every weight, and none else, is what its config promises


def test_a_run_that_maps_states_goes_on_to_the_same_bits_and_its_checkpoints_are_models(place, wide, tmp_path):
    settings = (f"--teacher={wide}", *MAPPED, "--train.steps=6", "--train.checkpoint.steps=2")
    distill(config(place, tmp_path / "whole", *settings))
    with pytest.raises(KeyboardInterrupt):
        distill(config(place, tmp_path / "cut", *settings), [Death(5)])
    checkpoint = tmp_path / "cut" / "checkpoints" / "step_00000004"
    held = {name: tensor for file in checkpoint.glob("*.safetensors") for name, tensor in load_file(file).items()}
    assert {"model.beside.0.weight", "model.beside.1.weight"} <= held.keys()
    assert held["model.beside.0.weight"].shape == (48, 32)
    assert not hasattr(load_model(checkpoint)[0], "beside")
    distill(config(place, tmp_path / "cut", *settings))
    assert outcome(tmp_path / "whole") == outcome(tmp_path / "cut")


# On policy ------------------------------------------------------------------------------------------------------------

OWN = ("--on_policy.share=1", "--on_policy.max_tokens=8", "--train.micro_batch=2")


def test_a_student_learns_from_what_it_says_itself(place, tmp_path):
    """By the reverse divergence, which among one's own samples is that of whole answers."""
    settings = ("--train.steps=40", "--optimizer.matrix_rate=0.05", "--distillation.divergence=reverse")
    distill(config(place, tmp_path / "run", *OWN, *settings))
    told = [line for line in records(tmp_path / "run") if "own_divergence" in line]
    assert told[-1]["own_divergence"] < 0.5 * told[0]["own_divergence"]
    assert all(line["own_share"] == 1 and "cross_entropy" not in line for line in told)
    held_out = [line["val_divergence"] for line in records(tmp_path / "run") if "val_divergence" in line]
    assert held_out[-1] < held_out[0]  # of the text's answers, which it never saw


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_on_policy_that_dies_goes_on_to_the_same_bits(method, place, tmp_path):
    own = ("--on_policy.share=0.5", "--on_policy.max_tokens=8", f"--method={method}")
    settings = (*own, "--train.steps=6", "--train.checkpoint.steps=1", "--optimizer.matrix_rate=0.05")
    distill(config(place, tmp_path / "whole", *settings))
    for death in (2, 5):
        with pytest.raises(KeyboardInterrupt):
            distill(config(place, tmp_path / "cut", *settings), [Death(death)])
    distill(config(place, tmp_path / "cut", *settings))
    assert outcome(tmp_path / "whole") == outcome(tmp_path / "cut")
    shares = [line["own_share"] for line in records(tmp_path / "whole") if "own_share" in line]
    assert shares and min(shares) < 1


def test_two_processes_say_and_learn_what_one_does(place, tmp_path):
    own = ("--on_policy.share=0.5", "--on_policy.max_tokens=8", "--train.steps=4")
    distill(config(place, tmp_path / "one", *own))
    distill(config(place, tmp_path / "two", *own, "--train.devices=2"))
    one, two = ([line for line in records(tmp_path / name) if "own_divergence" in line] for name in ("one", "two"))
    assert len(one) >= 3
    for line, other in zip(one, two, strict=True):
        assert line["own_share"] == other["own_share"]  # the very same number of tokens
        assert other["own_divergence"] == pytest.approx(line["own_divergence"], rel=1e-5)


def test_with_all_rows_its_own_no_answer_of_the_data_is_learned(place, tmp_path):
    """Other answers to the same prompts, as long as the room for them: not a byte changes."""
    facts = [json.loads(line) for line in (place / "facts.jsonl").read_text().splitlines()]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, facts[:3])))
    wrong = [json.dumps(row | {"response": "wrong" * (1 + n)}) for n, row in enumerate(facts[:3])]
    (tmp_path / "wrong.jsonl").write_text("\n".join(wrong))
    found = []
    for name in ("rows", "wrong"):
        files = {"data": tmp_path / f"{name}.jsonl", "validation": place / "facts.jsonl"}
        distill(replace(config(place, tmp_path / name, *OWN, "--train.steps=4"), **files))
        found.append(outcome(tmp_path / name))
    assert found[0] == found[1]


def test_without_a_share_nobody_is_asked(place, tmp_path, monkeypatch):
    monkeypatch.setattr(distilling, "OwnAnswers", None)
    assert distill(config(place, tmp_path / "run", "--train.steps=1", "--on_policy.share=0"))["finished"]


def test_conversations_of_text_alone_cannot_be_answered(place, tmp_path):
    (tmp_path / "texts.jsonl").write_text('{"text": "once upon"}\n{"text": "a time"}\n')
    with pytest.raises(DataError, match="is a text and no conversation"):
        distill(config(place, tmp_path / "run", *OWN, "--train.steps=1", f"--data={tmp_path / 'texts.jsonl'}"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (["--train.tensor_parallel=2"], "whole weights"),
        (["--train.parallel=fsdp"], "whole weights"),
        (["--curriculum=short_first"], "curriculum does nothing with on_policy.share 1"),
        (["--on_policy.share=1.5"], "on_policy.share"),
        (["--on_policy.max_tokens=0"], "on_policy.max_tokens"),
        (["--on_policy.temperature=-1"], "on_policy.temperature"),
    ],
)
def test_what_cannot_be_on_policy_is_refused(arguments, problem, place, tmp_path):
    with pytest.raises(ConfigError, match=problem):
        config(place, tmp_path / "run", *OWN, *arguments)


def test_the_command_asks_the_student_and_tells_what_it_did(place, tmp_path):
    given = ("--model", place / "student", "--teacher", place / "teacher", "--data", place / "facts.jsonl", *SHORT)
    own = ("--on_policy.share", 0.5, "--on_policy.max_tokens", 8, "--train.steps", 3, "--out", tmp_path / "run")
    done = seedbed_in(tmp_path, "distill", *given, *own)
    assert done.returncode == 0, done.stderr
    assert any("own_divergence" in line for line in records(tmp_path / "run"))
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    refused = seedbed_in(tmp_path, "distill", *given, *own, "--method", "prefix")
    assert refused.returncode != 0 and "the method prefix learns stands in the text" in refused.stderr
