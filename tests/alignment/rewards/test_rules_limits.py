"""Patterns, schemas and answers that would take for ever or end a run with a traceback are told, or worth nothing."""

from __future__ import annotations

import json
import logging
import time

import pytest

from seedbed.alignment.policy.config import GrpoConfig
from seedbed.alignment.rewards.rewards import Rewards
from seedbed.alignment.rewards.rules import json_schema, regex
from seedbed.configuration import from_arguments
from seedbed.data.preferences import Problem, read_rows
from seedbed.errors import ConfigError, DataError
from tests.sandbox.boxed import boxed

BOMB = {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(40)} | {"a40": {}}


def problem(reward: str, reference: str | None, tests: tuple[str, ...] = ()) -> Problem:
    return Problem("rows.jsonl, row 3", [], reference, reward, tests)


@pytest.mark.parametrize(
    ("rule", "reference", "answer"),
    [
        (regex, "(a+)+b", "a" * 40),
        (json_schema, json.dumps({"pattern": "^(a+)+$"}), json.dumps("a" * 40 + "!")),
        (json_schema, json.dumps({"$ref": "#/$defs/a0", "$defs": BOMB}), "1"),
    ],
)
def test_what_would_take_for_ever_is_worth_nothing_and_told(rule, reference, answer, monkeypatch, caplog):
    monkeypatch.setattr("seedbed.alignment.rewards.rules.LOOKING_SECONDS", 0.2)
    began = time.process_time()
    with caplog.at_level(logging.WARNING):
        assert rule(problem(rule.__name__, reference), answer) == 0.0
    assert time.process_time() - began < 5
    assert "rows.jsonl, row 3: its answer is too dear to compare with" in caplog.text


@pytest.mark.parametrize(("schema", "answer"), [({"multipleOf": 0.1}, "1e400"), ({"multipleOf": 0.5}, "9" * 4000)])
def test_no_number_that_a_model_says_ends_a_run(schema, answer):
    assert json_schema(problem("json_schema", json.dumps(schema)), answer) == 0.0


@pytest.mark.parametrize(
    ("rule", "reference", "said"),
    [
        ("json_schema", {"$ref": "#/nothing"}, "refers to #/nothing, which is not in it"),
        ("json_schema", {"$defs": {"b": {"$id": "b", "$ref": "#/$defs/b"}}}, "refers to #/[$]defs/b"),
        ("json_schema", 7, "neither an object nor true or false"),
        ("json_schema", "[" * 100_000, "nested too deeply"),
        ("regex", "(" * 3000 + ")" * 3000, "no regular expression"),
        ("regex", "a{99999999999999999999}", "no regular expression"),
    ],
)
def test_an_answer_that_nothing_can_be_held_against_is_named_before_the_run(rule, reference, said):
    text = reference if isinstance(reference, str) else json.dumps(reference)
    with pytest.raises(DataError, match=rf"rows\.jsonl, row 3: .*{said}"):
        Rewards({rule: 1.0}).refuse([problem("exact", text)])


def test_a_reference_within_a_part_that_has_a_name_is_found():
    inner = {"$id": "inner", "$ref": "#/$defs/c", "$defs": {"c": {"const": 1}}}
    asked = problem("json_schema", json.dumps({"$ref": "#/$defs/b", "$defs": {"b": inner}}))
    Rewards({"check": 1.0}).refuse([asked])
    assert [json_schema(asked, answer) for answer in ("1", "2")] == [1.0, 0.0]


@boxed
@pytest.mark.parametrize("test", ["-" * 200_000 + "f()", "f()" + ".a" * 100_000])
def test_tests_that_are_nested_too_deeply_are_named(test):
    with pytest.raises(DataError, match=r"row 3: .*the tests are no Python"):
        Rewards({"check": 1.0}).refuse([problem("tests", None, (test,))])


@pytest.mark.parametrize(
    ("answer", "reward"), [(3, "json_schema"), ("(" * 3000 + ")" * 3000, "regex"), ("a{99999999999999999999}", "regex")]
)
def test_a_row_whose_answer_is_none_of_its_kind_is_named(answer, reward, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"prompt": "?", "answer": answer, "reward": reward}))
    with pytest.raises(DataError, match=r"rows\.jsonl, row 1: answer"):
        list(read_rows(Problem, file))


@pytest.mark.parametrize("weight", [".nan", ".inf", "1e39"])
def test_a_weight_is_a_number(weight):
    with pytest.raises(ConfigError, match=r"rewards\.check must be a number, got"):
        from_arguments(GrpoConfig, ["--model=m", "--data=d", "--out=o", f'--rewards={{"check": {weight}}}'])
