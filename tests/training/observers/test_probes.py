"""Measurements of one's own."""

from __future__ import annotations

import math

import pytest
import torch

from seedbed.errors import ConfigError
from seedbed.training.observers.config import ProbesConfig
from seedbed.training.observers.probes import Probe, find_function
from seedbed.training.pretrain import pretrain
from tests.tiny import pretrain_config, random_rows, records, tiny_run, tiny_trainer

HERE = "tests.training.observers.test_probes"


def weight_and_chance(model, tokenizer, batch):
    """What a person might write: it draws random numbers, as sampling does."""
    assert not model.training and tokenizer.vocab_size == model.config.vocab_size
    return {"chance": float(torch.rand(())), "tokens": batch.tokens, "weight": model.embedding.weight.abs().sum()}


def test_a_function_that_the_config_names_is_asked_every_so_many_steps_and_at_the_end(tokens, tmp_path):
    arguments = ("--train.steps=5", "--probes.every=2", f"--probes.functions=[{HERE}:weight_and_chance]")
    pretrain(pretrain_config(tokens, tmp_path / "run", *arguments))
    found = records(tmp_path / "run", "statistics.jsonl")
    assert [record["step"] for record in found] == [2, 4, 5]
    assert all(record["weight_and_chance/tokens"] == 8 * 16 for record in found)
    assert len({record["weight_and_chance/weight"] for record in found}) == 3


def test_a_stage_above_hands_a_task_to_the_run(tokens, tmp_path):
    from seedbed.evaluation.likelihood import measure_likelihood
    from seedbed.tokenizers import bytes as byte_tokenizer

    def task(model, tokenizer, batch):
        return {"bits": measure_likelihood(model, tokenizer, ["the seed waits"], max_bytes=99, batch=2).bits_per_byte}

    config = pretrain_config(tokens, tmp_path / "run", "--train.steps=4")
    pretrain(config, observers=[Probe("tasks", 2, byte_tokenizer.build(), task)])
    first, last = records(tmp_path / "run", "statistics.jsonl")
    assert last["tasks/bits"] != first["tasks/bits"] and 4 < last["tasks/bits"] < 12


def test_numbers_that_json_cannot_hold_are_left_out(tmp_path):
    probe = Probe("mine", 1, None, lambda model, tokenizer, batch: {"a": math.nan, "b": 1})
    tiny_trainer(tmp_path, random_rows(4), steps=1, observers=[probe]).train()
    assert records(tmp_path, "statistics.jsonl") == [{"step": 1, "mine/b": 1.0}]


LEFT_OUT = "the probe mine is left out from here on, the run goes on without it: "


@pytest.mark.parametrize("answer", [3, None, {"a": "many"}, {"a": None}, {"a": torch.ones(2)}])
def test_an_answer_that_is_no_mapping_to_numbers_is_told_once_and_the_run_goes_on(answer, tmp_path, caplog):
    probe = Probe("mine", 1, None, lambda model, tokenizer, batch: answer)
    assert tiny_trainer(tmp_path, random_rows(4), steps=3, observers=[probe]).train()
    said = f"{LEFT_OUT}it returned {type(answer).__name__}, which is not a mapping from names to numbers"
    assert [line for line in caplog.messages if "probe mine is" in line] == [said]


def test_a_probe_that_fails_is_told_once_with_its_line_and_the_run_ends_in_the_same_bits(tmp_path, caplog):
    def fail(model, tokenizer, batch):
        torch.rand(3)
        return {"a": 1 / 0}

    seen = Probe("other", 2, None, lambda model, tokenizer, batch: {"a": 1})
    watched = tiny_trainer(tmp_path / "watched", observers=[Probe("mine", 1, None, fail), seen])
    alone = tiny_trainer(tmp_path / "alone")
    assert watched.train() and alone.train()
    line = fail.__code__.co_firstlineno + 2
    said = f"{LEFT_OUT}ZeroDivisionError: division by zero ({__file__}, line {line})"
    assert [line for line in caplog.messages if "probe mine is" in line] == [said]
    assert all(map(torch.equal, watched.parameters, alone.parameters)) and watched.model.training
    assert len(records(tmp_path / "watched", "statistics.jsonl")) == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("def speak(:\n", r"cannot be read: SyntaxError: .*\(broken_\w+\.py, line 1\)$"),
        ("\n1 / 0\n", r"fails when it is imported: ZeroDivisionError: division by zero \(.*broken_\w+\.py, line 2\)$"),
    ],
)
def test_a_module_that_cannot_be_imported_is_refused_in_one_line(text, problem, tmp_path, monkeypatch):
    name = f"broken_{len(text)}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=problem) as error:
        find_function(f"{name}:speak")
    assert "\n" not in str(error.value)


def test_functions_are_found_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "of_my_own.py").write_text("def speak(model, tokenizer, batch):\n    return {}\nnothing = 3\n")
    monkeypatch.chdir(tmp_path)
    assert find_function("of_my_own:speak")(None, None, None) == {}
    with pytest.raises(ConfigError, match="of_my_own:nothing is no function"):
        find_function("of_my_own:nothing")


@pytest.mark.parametrize("place", ["nowhere.at.all:f", f"{HERE}:missing"])
def test_a_function_that_is_not_there_ends_the_run_before_it_begins(place, tokens, tmp_path):
    with pytest.raises(ConfigError, match="cannot be found"):
        tiny_run(*(tokens, tmp_path / "run", "--train.steps=1", "--probes.every=1", f"--probes.functions=[{place}]"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["module", "module:", ":name", "a b:c", "m:f()", "os.system('x'):f"])
def test_what_is_no_place_of_a_function_is_refused(place):
    with pytest.raises(ConfigError, match=r"not of the form package\.module:function"):
        ProbesConfig(functions=[place])
