"""A rule says the same of the same answer every time, and a problem it cannot judge is told before a run."""

from __future__ import annotations

import json
import sys
from decimal import Decimal

import pytest

from seedbed.alignment.rewards.rewards import Rewards
from seedbed.alignment.rewards.rules import CHECKS, REWARDS, Answer, last_number
from seedbed.data.preferences import Problem
from seedbed.errors import ConfigError, DataError, SandboxError
from seedbed.sandbox import check_many
from tests.sandbox.boxed import boxed


def problem(reward: str, reference: str | None) -> Problem:
    return Problem("rows.jsonl, row 3", [{"role": "user", "content": "?"}], reference, reward, ())


def says(rewards: Rewards, asked: Problem, *answers: str) -> list[list[float]]:
    """What each reward says of each answer."""
    return rewards([Answer(asked, answer) for answer in answers]).rewards_BF.tolist()


@pytest.mark.parametrize(
    ("reward", "reference", "right", "wrong"),
    [
        ("exact", "ab c", ["ab c", " ab c\n"], ["ab  c", "AB c", "ab c.", ""]),
        ("exact", " ab", ["ab"], ["a b"]),
        (
            "numeric",
            "#### 1,234.50",
            ["1234.5", "It is 3, no: 1,234.5!", "= +1234.50"],
            ["1234", "", "1,2345", "-1234.5"],
        ),
        ("numeric", "-3", ["−3", "x=-3.0", "12 and -3."], ["3", "5-3", "-3 or 4"]),
        ("numeric", "0.1", [".1", "1e-1", "0.10"], ["0.1000000001", "1"]),
        ("numeric", "9007199254740993", ["9,007,199,254,740,993.0"], ["9007199254740992"]),  # one and the same float
        ("regex", "[a-c]+", ["abc", " a "], ["abcd", ""]),
        ("regex", "yes.*", ["yes\nindeed"], ["oh yes"]),
        (
            "json_schema",
            '{"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}',
            ['{"b": 1, "a": 2}', ' {"a": 2}\n'],
            ['{"a": "2"}', "{}", '{"a": 2', '{"a": 2} or so', '{"a": NaN}', '{"a": "x", "a": 2}', "[" * 100_000],
        ),
    ],
)
def test_a_rule_gives_one_for_a_right_answer_and_nought_for_another(reward, reference, right, wrong):
    rewards = Rewards({"check": 1.0, reward: 2.0})
    asked = problem(reward, reference)
    rewards.refuse([asked])
    assert says(rewards, asked, *right) == [[1.0, 1.0]] * len(right)
    assert says(rewards, asked, *wrong) == [[0.0, 0.0]] * len(wrong)


PROGRAM = "def double(x):\n    return 2 * x\n"


@boxed
@pytest.mark.parametrize(
    ("answer", "worth"),
    [
        (PROGRAM, 1.0),
        (f"Here it is:\n```python\n{PROGRAM}```\nIt doubles.", 1.0),
        (f"Here it is:\n{PROGRAM}", 0.0),
        ("def double(x):\n    return x + 2\n", 0.0),  # passes one of the two
        ("import os\nos._exit(0)", 0.0),
    ],
)
def test_a_program_is_worth_something_when_it_passes_all_of_its_tests(answer, worth):
    asked = Problem("row 3", [], None, "tests", ("assert double(2) == 4", "assert double(5) == 10"))
    rewards = Rewards({"check": 1.0})
    rewards.refuse([asked])
    assert says(rewards, asked, answer) == [[worth]]


@boxed
def test_many_answers_are_judged_together_each_by_its_own_row(monkeypatch):
    """Programs run several at a time, and none that has failed a test goes on to the next."""
    together = []

    def watched(pairs, limits, *, workers):
        together.append(len(pairs))
        return check_many(pairs, limits, workers=workers)

    monkeypatch.setattr("seedbed.alignment.rewards.rules.check_many", watched)
    tests = ("assert double(2) == 4", "assert double(5) == 10")
    code = Problem("row 1", [], None, "tests", tests)
    single = Problem("row 2", [], None, "tests", tests[:1])
    squares = "def double(x):\n    return x * x\n"  # right for 2 alone
    answers = [
        Answer(problem("exact", "a"), "a"),
        Answer(code, squares),
        Answer(code, PROGRAM),
        Answer(code, PROGRAM, ended=False),
        Answer(single, squares),
        Answer(code, "def double(x):\n    return 0\n"),
        Answer(problem("exact", "a"), "b"),
    ]
    found = Rewards({"check": 1.0})(answers)
    assert found.rewards_BF[:, 0].tolist() == [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0]
    assert together == [4, 2]


def test_without_a_sandbox_programs_are_refused_before_the_run(monkeypatch):
    monkeypatch.setattr("seedbed.sandbox.kinds.lacking", lambda: "bubblewrap is not installed")
    asked = Problem("row 3", [], None, "tests", ("assert double(2) == 4",))
    with pytest.raises(SandboxError, match="there is none: bubblewrap is not installed"):
        Rewards({"check": 1.0}).refuse([asked])


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("no number", None),
        ("1.", "1"),
        ("a1", "1"),
        ("1,23", "23"),
        ("12,345,678", "12345678"),
        ("v1.2.3", "3"),
        ("٣", "3"),
    ],
)
def test_the_last_number_of_a_text_is_taken_as_people_write_it(text, number):
    assert last_number(text) == (None if number is None else Decimal(number))


@pytest.mark.parametrize(
    ("rule", "asked", "said"),
    [
        ("exact", problem("exact", None), "it has no answer, which the reward exact compares with"),
        ("numeric", problem("exact", "ten"), "holds no number"),
        ("regex", problem("exact", "("), "no regular expression"),
        ("json_schema", problem("exact", "{"), "no JSON schema"),
        ("check", problem("json_schema", '{"type": 7}'), "no JSON schema"),
        ("tests", problem("exact", "x"), "it has no tests, which the reward tests runs"),
        pytest.param("check", Problem("rows.jsonl, row 3", [], None, "tests", ("1 +",)), "no Python", marks=boxed),
    ],
)
def test_a_problem_that_a_rule_cannot_judge_is_named_before_the_run(rule, asked, said):
    with pytest.raises(DataError, match=f"rows.jsonl, row 3: .*{said}"):
        Rewards({rule: 1.0}).refuse([asked])


def test_a_reward_that_there_is_not_is_refused_with_those_that_there_are():
    with pytest.raises(ConfigError, match=r"there is no reward 'taste'\nThere are: check, exact, .*, mine"):
        Rewards({"taste": 1.0}, {"mine": lambda problem, answer: 1.0})
    with pytest.raises(ConfigError, match="no reward is given"):
        Rewards({})
    assert set(REWARDS) == {"check", *CHECKS}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_reward_of_a_persons_own_must_be_a_number(value):
    rewards = Rewards({"mine": 1.0}, {"mine": lambda problem, answer: value if answer == "bad" else len(answer)})
    assert says(rewards, problem("exact", "x"), "four") == [[4.0]]
    with pytest.raises(DataError, match=r"row 3: the reward mine is (nan|inf|-inf) for the answer 'bad'"):
        says(rewards, problem("exact", "x"), "bad")


@pytest.mark.parametrize("mine", [lambda answer: 1.0, lambda problem, answer: None, lambda problem, answer: 1 / 0])
def test_a_reward_of_a_persons_own_that_fails_is_told_with_the_row(mine):
    rewards = Rewards({"mine": 1.0}, {"mine": mine})
    with pytest.raises(DataError, match=r"row 3: the reward mine failed, (Type|ZeroDivision)Error: ") as told:
        says(rewards, problem("exact", "x"), "four")
    assert "function(problem, answer)" in told.value.fix


def test_a_schema_that_refers_elsewhere_is_refused():
    """A "$ref" to an address is an error, not a request; one inside is followed."""
    asked = problem("json_schema", json.dumps({"$ref": "http://localhost:1/schema.json"}))
    with pytest.raises(DataError, match=r"row 3: .*refers to http://localhost:1/schema.json"):
        Rewards({"check": 1.0}).refuse([asked])
    inside = problem("json_schema", json.dumps({"$ref": "#/$defs/one", "$defs": {"one": {"const": 1}}}))
    Rewards({"check": 1.0}).refuse([inside])
    assert says(Rewards({"check": 1.0}), inside, "1", "2") == [[1.0], [0.0]]


def test_without_jsonschema_the_error_says_what_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    from seedbed.alignment.rewards import rules

    rules._validator.cache_clear()
    with pytest.raises(ConfigError, match=r"reward json_schema needs the package jsonschema(.|\n)*\[align\]"):
        Rewards({"check": 1.0}).refuse([problem("json_schema", '{"type": "null"}')])
