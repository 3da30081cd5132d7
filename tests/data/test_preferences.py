"""Reading preferences, judgements and problems in the shapes people have them."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from seedbed.data.preferences import Judgement, Preference, Problem, read_rows
from seedbed.errors import DataError


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "s"}
TURNS = [SYSTEM, user("a"), assistant("b"), user("c")]


def write(tmp_path, rows, name="rows.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def one(kind, tmp_path, row):
    (read,) = read_rows(kind, write(tmp_path, [row]))
    assert read.name == f"{tmp_path / 'rows.jsonl'}, row 1"
    return read


# Preferences ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "c", "chosen": "x", "rejected": "y"}, [user("c")]),
        ({"prompt": "c", "chosen": "x", "rejected": "y", "system": "s", "margin": None}, [SYSTEM, user("c")]),
        ({"question": "c", "chosen": [assistant("x")], "rejected": [assistant("y")]}, [user("c")]),
        ({"prompt": TURNS, "chosen": "x", "rejected": [assistant("y")]}, TURNS),
        ({"instruction": "c", "input": "", "output": "z", "chosen": "x", "rejected": "y"}, [user("c")]),
        ({"chosen": [*TURNS, assistant("x")], "rejected": [*TURNS, assistant("y")]}, TURNS),
        ({"prompt": "c", "chosen": [*TURNS, assistant("x")], "rejected": [*TURNS, assistant("y")]}, TURNS),
        ({"prompt": TURNS, "chosen": [*TURNS, assistant("x")], "rejected": [*TURNS, assistant("y")]}, TURNS),
        (
            {
                "chosen": [{"from": "human", "value": "c"}, {"from": "gpt", "value": "x"}],
                "rejected": [{"from": "human", "value": "c"}, {"from": "gpt", "value": "y"}],
            },
            [user("c")],
        ),
        (
            {
                "input": {"messages": [user("c")], "tools": []},
                "preferred_output": [assistant("x")],
                "non_preferred_output": [assistant("y")],
            },
            [user("c")],
        ),
        (
            {
                "conversations": [{"from": "human", "value": "c"}],
                "chosen": {"from": "gpt", "value": "x"},
                "rejected": {"from": "gpt", "value": "y"},
            },
            [user("c")],
        ),
        ({"messages": TURNS, "chosen": assistant("x"), "rejected": assistant("y")}, TURNS),
    ],
)
def test_each_shape_of_a_preference_is_read(row, prompt, tmp_path):
    read = one(Preference, tmp_path, row)
    assert (read.prompt, read.chosen, read.rejected) == (prompt, [assistant("x")], [assistant("y")])
    assert read.margin is None


def test_the_input_of_alpaca_goes_to_the_prompt(tmp_path):
    row = {"instruction": "Spell it.", "input": "kat", "output": "cat", "chosen": "cat", "rejected": "kat!"}
    (message,) = one(Preference, tmp_path, row).prompt
    assert message["content"] == "Spell it.\n\nkat" and message["input"] == "kat"


@pytest.mark.parametrize("margin", [2, 0.5, "0.5", -1.0])
def test_a_margin_is_a_number(margin, tmp_path):
    row = {"prompt": "c", "chosen": "x", "rejected": "y", "margin": margin}
    assert one(Preference, tmp_path, row).margin == float(margin)


PAIR = {"prompt": "c", "chosen": "x", "rejected": "y"}
BAD_PREFERENCES = [
    (3, "an object is needed, got 3"),
    ({"prompt": "c", "chosen": "x"}, "it has no rejected; its keys: 'prompt', 'chosen'"),
    (PAIR | {"rejected": None}, "it has no rejected"),
    ({"chosen": "x", "rejected": "y"}, "it has no prompt"),
    (PAIR | {"prompt": ""}, "prompt is empty"),
    (PAIR | {"prompt": []}, "at least one message"),
    (PAIR | {"prompt": [user("c"), assistant("x")]}, "prompt ends with a message of the assistant"),
    (PAIR | {"chosen": 3}, "chosen must be a text, got 3"),
    (PAIR | {"chosen": [user("c"), assistant("x")]}, "chosen must begin and end with a message of the assistant"),
    (PAIR | {"margin": "much"}, "margin must be a number, got 'much'"),
    (PAIR | {"margin": 1e300}, "margin must be a number, got 1e[+]300"),
    (PAIR | {"chosen": [*TURNS, assistant("x")], "rejected": TURNS}, "part at message 5, which must be an answer"),
    (
        {"chosen": [user("a"), assistant("x")], "rejected": [user("b"), assistant("x")]},
        "part at message 1, which must be an answer",
    ),
    (
        PAIR | {"prompt": "d", "chosen": [user("c"), assistant("x")], "rejected": [user("c"), assistant("y")]},
        "its prompt is not in what chosen and rejected begin with",
    ),
    (
        PAIR | {"prompt": [user("d")], "chosen": [user("c"), assistant("x")], "rejected": [user("c"), assistant("y")]},
        "its prompt is not what chosen and rejected begin with",
    ),
]
USELESS = [
    (PAIR | {"rejected": "x"}, "equal answers", "chosen and rejected are the same"),
    ({"chosen": [*TURNS, assistant("x")], "rejected": [*TURNS, assistant("x")]}, "equal answers", "are the same"),
    (PAIR | {"rejected": " \n"}, "empty answer", "rejected is empty"),
    ({"chosen": [*TURNS, assistant("")], "rejected": [*TURNS, assistant("x")]}, "empty answer", "chosen is empty"),
]


@pytest.mark.parametrize(("row", "problem"), [*BAD_PREFERENCES, *((row, problem) for row, _, problem in USELESS)])
def test_a_bad_preference_is_named_with_what_is_wrong(row, problem, tmp_path):
    with pytest.raises(DataError, match=rf"rows\.jsonl, row 2: .*{problem}"):
        list(read_rows(Preference, write(tmp_path, [PAIR, row])))


def test_rows_that_teach_nothing_can_be_dropped_and_are_counted(tmp_path):
    counts: Counter[str] = Counter()
    path = write(tmp_path, [PAIR, *(row for row, _, _ in USELESS), PAIR])
    kept = list(read_rows(Preference, path, useless="drop", counts=counts))
    assert [row.name for row in kept] == [f"{path}, row 1", f"{path}, row 6"]
    assert counts == Counter(reason for _, reason, _ in USELESS)


@pytest.mark.parametrize(("row", "problem"), BAD_PREFERENCES)
def test_what_is_malformed_is_never_dropped(row, problem, tmp_path):
    with pytest.raises(DataError, match=problem):
        list(read_rows(Preference, write(tmp_path, [PAIR, row]), useless="drop"))


def test_a_file_of_which_nothing_is_left_is_named(tmp_path):
    with pytest.raises(DataError, match=r"rows\.jsonl holds no row to learn from"):
        list(read_rows(Preference, write(tmp_path, [USELESS[0][0]]), useless="drop"))
    with pytest.raises(DataError, match=r"rows\.jsonl holds no row to learn from"):
        list(read_rows(Preference, write(tmp_path, [])))


# Judgements ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [True, False, "true", "False", 1, 0, "0"])
def test_a_judgement_is_read(label, tmp_path):
    read = one(Judgement, tmp_path, {"prompt": "c", "completion": "x", "label": label})
    assert (read.prompt, read.completion) == ([user("c")], [assistant("x")])
    assert read.label is (label in (True, "true"))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "c", "response": "x"},
        {"messages": [user("c"), assistant("x")]},
        {"prompt": "title", "messages": [user("c"), assistant("x")]},
        {"conversations": [{"from": "human", "value": "c"}, {"from": "gpt", "value": "x"}]},
    ],
)
def test_each_shape_of_a_judgement_is_read(row, tmp_path):
    read = one(Judgement, tmp_path, {**row, "label": True})
    assert (read.prompt, read.completion) == ([user("c")], [assistant("x")])


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "c", "completion": "x"}, "label must be true or false, got 'nothing'"),
        ({"prompt": "c", "completion": "x", "label": 2}, "label must be true or false, got 2"),
        ({"prompt": "c", "completion": "x", "label": "good"}, "label must be true or false, got 'good'"),
        ({"prompt": "c", "label": True}, "completion must be a text, got nothing"),
        ({"prompt": "c", "completion": "", "label": True}, "completion is empty"),
        ({"completion": "x", "label": True}, "it has no prompt"),
        ({"messages": [user("c")], "label": True}, "messages must end with a message of the assistant"),
        ({"messages": [assistant("x")], "label": True}, "messages must end with a message of the assistant"),
        ({"messages": [user("c"), assistant("")], "label": True}, "the last of messages is empty"),
    ],
)
def test_a_bad_judgement_is_named_with_what_is_wrong(row, problem, tmp_path):
    with pytest.raises(DataError, match=rf"rows\.jsonl, row 1: .*{problem}"):
        list(read_rows(Judgement, write(tmp_path, [row])))


# Problems ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "reference", "reward", "tests"),
    [
        ({"prompt": "c", "answer": "x"}, "x", "exact", ()),
        ({"prompt": [user("c")], "reference": "#### 1,000", "reward": "numeric"}, "#### 1,000", "numeric", ()),
        ({"question": "c", "answer": 18, "reward": "numeric"}, "18", "numeric", ()),
        ({"prompt": "c", "solution": "x"}, "x", "exact", ()),
        ({"messages": [user("c")], "ground_truth": "x"}, "x", "exact", ()),
        ({"prompt": "c", "answer": "a+", "reward": "regex"}, "a+", "regex", ()),
        ({"prompt": "c", "answer": {"type": "null"}, "reward": "json_schema"}, '{"type": "null"}', "json_schema", ()),
        ({"prompt": "c", "answer": '{"type":"null"}', "reward": "json_schema"}, '{"type": "null"}', "json_schema", ()),
        ({"prompt": "c", "tests": "assert f(1) == 2"}, None, "tests", ("assert f(1) == 2",)),
        ({"prompt": "c", "tests": ["assert a", "assert b"], "answer": "x"}, "x", "tests", ("assert a", "assert b")),
    ],
)
def test_a_problem_is_read(row, reference, reward, tests, tmp_path):
    read = one(Problem, tmp_path, row)
    assert (read.prompt, read.reference, read.reward, read.tests) == ([user("c")], reference, reward, tests)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "c"}, "neither answer, reference nor tests; its keys: 'prompt'"),
        ({"prompt": "c", "answer": ""}, "answer is empty"),
        (
            {"prompt": "c", "answer": "x", "reward": "taste"},
            "reward must be one of exact, numeric, regex, json_schema, tests, got 'ta",
        ),
        ({"prompt": "c", "answer": "ten", "reward": "numeric"}, "answer holds no number"),
        ({"prompt": "c", "reference": "(", "reward": "regex"}, "reference is no regular expression"),
        ({"prompt": "c", "answer": "{", "reward": "json_schema"}, "answer is no JSON schema"),
        ({"prompt": "c", "answer": [1], "reward": "json_schema"}, "answer must be a JSON schema, got a list"),
        ({"prompt": "c", "answer": "x", "reward": "tests"}, "its reward is tests, but it has none"),
        ({"prompt": "c", "tests": "assert a", "reward": "exact"}, "it has neither answer, reference"),
        ({"prompt": "c", "tests": [1]}, "tests must be a text of source code"),
        ({"answer": "x"}, "it has no prompt"),
    ],
)
def test_a_bad_problem_is_named_with_what_is_wrong(row, problem, tmp_path):
    with pytest.raises(DataError, match=rf"rows\.jsonl, row 1: .*{problem}"):
        list(read_rows(Problem, write(tmp_path, [row])))


def test_a_table_holds_preferences_too(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,chosen,rejected,margin\nc,x,y,0.25\n")
    (read,) = read_rows(Preference, tmp_path / "a.csv")
    assert (read.prompt, read.margin) == ([user("c")], 0.25)
