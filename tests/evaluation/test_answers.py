"""Answers are held against gold answers, and some of both are shown."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedbed.configuration import from_arguments
from seedbed.errors import DataError
from seedbed.evaluation.answers import f1, words
from seedbed.evaluation.config import EvaluateConfig
from seedbed.evaluation.evaluate import evaluate
from seedbed.inference.engine import Engine
from tests.tiny import save_tiny_model


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("The cat sat.", "the cat sat", 1.0),
        ("the cat", "a dog", 0.0),
        ("the cat sat", "the cat", 2 * (2 / 3) * 1 / (2 / 3 + 1)),
        ("yes yes", "yes", 2 * 0.5 * 1 / 1.5),
        ("", "", 1.0),
        ("", "word", 0.0),
    ],
)
def test_f1_is_the_harmonic_mean_of_precision_and_recall_of_words(one, other, expected):
    assert f1(one, other) == pytest.approx(expected)


@given(st.text(), st.text())
def test_f1_is_a_share_and_the_same_both_ways(one, other):
    assert 0 <= f1(one, other) == f1(other, one) <= 1
    assert (f1(one, other) == 1) == (sorted(words(one)) == sorted(words(other)))


def test_a_report_tells_how_near_answers_come_and_shows_some(tmp_path):
    model = save_tiny_model(tmp_path / "model", context=96)
    asked = [{"role": "user", "content": "color?"}]
    answer = Engine.load(model).chat(asked, temperature=0, max_tokens=6).strip()
    rows = [
        {"messages": [*asked, {"role": "assistant", "content": answer}]},
        {"prompt": "what?", "response": "never said this"},
        {"prompt": "long " * 30, "response": "left out"},
    ]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = [f"--model={model}", f"--data_dir={tmp_path}", f"--out={tmp_path / 'report'}", "--device=cpu"]
    result = evaluate(from_arguments(EvaluateConfig, [*arguments, "--tasks=[answers]", "--longest_answer=6"]))
    found = result["tasks"]["answers"]
    assert found == {"exact": 0.5, "f1": pytest.approx(0.5), "questions": 2, "left_out": 1}
    samples = [json.loads(line) for line in (tmp_path / "report" / "answers.jsonl").read_text().splitlines()]
    assert samples[0] == {"prompt": "color?", "gold": answer, "given": answer, "exact": True, "f1": 1.0}
    card = (tmp_path / "report" / "README.md").read_text()
    assert "F1 1.00: 'color?'" in card and "gold 'never said this'" in card


@pytest.mark.parametrize(
    "row", [{"text": "plain"}, {"messages": [{"role": "user", "content": "hi"}]}], ids=["text", "no answer"]
)
def test_a_row_without_an_answer_is_named(row, tmp_path):
    (tmp_path / "answers.jsonl").write_text(
        json.dumps({"prompt": "a", "response": "b"}) + "\n" + json.dumps(row) + "\n"
    )
    model = save_tiny_model(tmp_path / "model", context=96)
    arguments = [f"--model={model}", f"--data_dir={tmp_path}", f"--out={tmp_path / 'report'}", "--tasks=[answers]"]
    with pytest.raises(DataError, match=r"row 2.* does not end with an answer"):
        evaluate(from_arguments(EvaluateConfig, [*arguments, "--device=cpu"]))
