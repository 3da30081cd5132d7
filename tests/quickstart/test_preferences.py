"""What the quickstart aligns on: the right answer is the better one, and nothing that is measured is learned from."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace

import pytest

from seedbed.data.skills import SkillItem, training_items
from seedbed.quickstart import preferences as room
from seedbed.quickstart import stages
from seedbed.quickstart.config import QuickstartConfig
from seedbed.quickstart.preferences import preferences, slip, write_preferences
from seedbed.tokenizers import bytes as byte_tokenizer

ITEMS = list(training_items(500, seed=7))


def test_the_right_answer_is_chosen_and_what_was_said_rejected_where_it_was_wrong():
    said = [(item.answer, f" {item.answer}\n", "", "wrong")[number % 4] for number, item in enumerate(ITEMS)]
    rows = list(preferences(ITEMS, said, seed=1))
    assert [(row["prompt"], row["chosen"]) for row in rows] == [(item.prompt, item.answer) for item in ITEMS]
    assert {row["rejected"] for row in rows[3::4]} == {"wrong"}
    for row in rows:
        assert row["rejected"].strip() == row["rejected"] not in ("", row["chosen"])
    assert rows == list(preferences(ITEMS, said, seed=1)) != list(preferences(ITEMS, said, seed=2))


def test_a_slip_is_near_the_answer():
    draw = random.Random(0)
    for item in ITEMS:
        wrong = slip(item.answer, draw)
        if item.answer.isdecimal():
            assert abs(int(wrong) - int(item.answer)) in (0, 1, 2, 10) or int(wrong) == 0
        else:
            assert abs(len(wrong) - len(item.answer)) <= 2


def test_an_answer_that_was_cut_off_is_no_mistake_to_learn_from(monkeypatch, tmp_path):
    """It may be right as far as it goes."""
    items = [SkillItem("copying", word, f"Copy {word}", word) for word in ("abc", "def")]
    completions = [SimpleNamespace(text="long", reason="length"), SimpleNamespace(text="short", reason="end")]
    monkeypatch.setattr(room, "answers", lambda engine, prompts, sampling: iter(completions))
    write_preferences(tmp_path / "rows.jsonl", SimpleNamespace(tokenizer=byte_tokenizer.build()), items, seed=0)
    first, second = map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())
    assert "long" not in first["rejected"] and second["rejected"] == "short"


@pytest.fixture
def way(tmp_path) -> stages.Quickstart:
    return stages.Quickstart(QuickstartConfig(out=tmp_path, minutes=0.01, device="cpu"))


def test_nothing_is_learned_from_that_is_of_the_held_out_items(way, monkeypatch):
    """Of what each stage learns from every item is asked, in whatever words."""
    written: dict[str, list[SkillItem]] = {}
    for name, place in (("write_conversations", 1), ("write_problems", 1), ("write_preferences", 2)):

        def keep(*given, name=name, place=place, **settings):
            path: Path = given[0]
            written[f"{name} {path.name}"] = list(given[place])
            path.write_text("")

        monkeypatch.setattr(stages, name, keep)
    monkeypatch.setattr(stages.Engine, "load", lambda *given, **settings: None)
    monkeypatch.setattr(stages, "find_model", lambda path: way.out / "questions")
    way.questions()
    way.preferences()
    learned = {"write_conversations train.jsonl", "write_problems problems.jsonl", "write_preferences train.jsonl"}
    for name, items in written.items():
        assert items and {item.held_out for item in items} == {name not in learned}
    assert learned < written.keys() and len(written) == 6
    assert not any(written[one] == written[other] for one in learned for other in learned - {one})  # each drawn anew


def test_nothing_is_measured_that_validation_sees(way):
    measured = {(item.skill, item.arguments) for item in way.measured()}
    seen = [(item.skill, item.arguments) for item in way.unseen()]
    assert len(set(seen)) == len(seen) == 6 * stages.VALIDATED_PER_SKILL and measured.isdisjoint(seen)


def test_each_stage_goes_on_from_the_one_before_with_rows_of_its_own(way, monkeypatch):
    begun = {}
    for name in ("dpo", "grpo"):
        monkeypatch.setattr(stages, name, lambda config, name=name: begun.setdefault(name, config) and {})
    way.dpo()
    way.grpo()
    paths = {name: (config.model, config.data, config.validation) for name, config in begun.items()}
    assert paths == {
        "dpo": tuple(
            way.out / path for path in ("finetune", "preferences/train.jsonl", "preferences/validation.jsonl")
        ),
        "grpo": tuple(way.out / path for path in ("dpo", "questions/problems.jsonl", "questions/unseen.jsonl")),
    }
    # What is measured is told of the last step: none is chosen by what validation sees.
    assert {config.train.select for config in begun.values()} == {"last"}
    assert {config.train.patience for config in begun.values()} == {None}
