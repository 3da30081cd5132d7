"""A constitution gives pairs in which the revision is preferred, and says why a prompt gave none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import pytest

import seedbed.alignment.constitution.constitution as room
from seedbed.alignment.constitution.config import ConstitutionConfig
from seedbed.alignment.constitution.constitution import PRINCIPLES, constitution, read_principles
from seedbed.cli import main
from seedbed.data.preferences import Preference, read_rows
from seedbed.errors import ConfigError, DataError
from seedbed.inference.generation import Completion
from seedbed.runs import open_folder
from seedbed.tokenizers import bytes as byte_tokenizer
from seedbed.tokenizers.chat import find_template

TOKENIZER = byte_tokenizer.build().with_template(find_template("chatml"))
PRINCIPLE = {"name": "kind", "critique": "WHAT IS UNKIND?", "revision": "SAY IT KINDLY."}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def said(monkeypatch, base):
    """A model that follows its principles; what it was asked, in order."""
    heard: list[str] = []

    def answers(
        engine: object, prompts: Sequence[Sequence[int]], sampling: object, *, adapter: str | None
    ) -> Iterator[Completion]:
        for ids in prompts:
            text = TOKENIZER.decode(ids)
            heard.append(text)
            asked = next(line for line in text.splitlines() if line.startswith("tell me"))
            if "SAY IT KINDLY." in text.split("<|im_start|>user")[-1]:
                reply = {"tell me nothing new": "rude", "tell me half": "kin"}.get(
                    asked, f"kind {text.count('SAY IT')}"
                )
            elif "WHAT IS UNKIND?" in text.split("<|im_start|>user")[-1]:
                reply = "the word rude"
            else:
                reply = "" if asked == "tell me silence" else "rude"
            yield Completion(reply, (), "length" if asked == "tell me half" and reply == "kin" else "end")

    engine = SimpleNamespace(tokenizer=TOKENIZER, fits=lambda ids: "tell me long" not in TOKENIZER.decode(ids))
    monkeypatch.setattr(room, "answers", answers)
    monkeypatch.setattr(room, "open_engine", lambda config: (engine, None))
    return heard


def run(base, tmp_path, prompts, **settings):
    config = ConstitutionConfig(
        model=base,
        prompts=write(tmp_path / "prompts.jsonl", [{"prompt": f"tell me {prompt}"} for prompt in prompts]),
        principles=write(tmp_path / "principles.jsonl", [PRINCIPLE]),
        out=tmp_path / "out",
        **settings,
    )
    return constitution(config)


def test_the_revision_is_preferred_to_the_first_answer(said, base, tmp_path):
    result = run(base, tmp_path, ["one", "two"])
    pairs = list(read_rows(Preference, result["preferences"]))
    assert [(pair.prompt[-1]["content"], pair.chosen[0]["content"], pair.rejected[0]["content"]) for pair in pairs] == [
        ("tell me one", "kind 1", "rude"),
        ("tell me two", "kind 1", "rude"),
    ]
    assert result["pairs"] == 2 and result["dropped"] == {}
    open_folder(tmp_path / "out", "preferences")


def test_each_round_revises_what_the_one_before_it_made(said, base, tmp_path):
    run(base, tmp_path, ["one"], rounds=2)
    (transcript,) = map(json.loads, (tmp_path / "out" / "transcripts.jsonl").read_text().splitlines())
    assert transcript["answers"] == ["rude", "kind 1", "kind 1"] and len(transcript["critiques"]) == 2
    assert "kind 1" in said[3] and "rude<" not in said[3]  # the second critique is of the first revision alone


def test_what_teaches_nothing_is_left_out_and_counted(said, base, tmp_path):
    result = run(base, tmp_path, ["one", "silence", "nothing new", "half", "long stories"])
    assert result["pairs"] == 1
    assert result["dropped"] == {"empty answer": 1, "nothing revised": 1, "revision cut off": 1, "too long": 1}
    transcripts = list(map(json.loads, (tmp_path / "out" / "transcripts.jsonl").read_text().splitlines()))
    assert [transcript["dropped"] is None for transcript in transcripts] == [True, False, False, False, False]


def test_no_pair_at_all_is_an_error_and_leaves_nothing(said, base, tmp_path):
    with pytest.raises(DataError, match=r"no pair came of 1 prompts \(empty answer: 1\)"):
        run(base, tmp_path, ["silence"])
    assert not (tmp_path / "out").exists()


def test_principles_are_drawn_by_seed_and_row(base, tmp_path, said):
    many = [{**PRINCIPLE, "name": str(number)} for number in range(50)]
    names = []
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / out).mkdir()
        config = ConstitutionConfig(
            model=base,
            prompts=write(tmp_path / "p.jsonl", [{"prompt": f"tell me {number}"} for number in range(9)]),
            principles=write(tmp_path / "many.jsonl", many),
            out=tmp_path / out / "out",
            seed=seed,
        )
        rows = map(json.loads, (constitution(config) and config.out / "preferences.jsonl").read_text().splitlines())
        names.append([row["principles"] for row in rows])
    assert names[0] == names[1] != names[2] and len(set(map(tuple, names[0]))) > 3


def test_a_principle_that_lacks_a_part_is_named(tmp_path):
    with pytest.raises(DataError, match=r"row 2: revision must be a text, got nothing"):
        read_principles(write(tmp_path / "p.jsonl", [PRINCIPLE, {"name": "x", "critique": "y"}]))
    with pytest.raises(DataError, match="holds no principle"):
        read_principles(write(tmp_path / "empty.jsonl", []))
    assert len(read_principles(PRINCIPLES)) >= 4


def test_answers_are_free_text(base, tmp_path):
    with pytest.raises(ConfigError, match="regex is for a single answer"):
        ConstitutionConfig(model=base, prompts=tmp_path, out=tmp_path, regex="a")


def test_the_command_asks_the_model(base, tmp_path, capsys):
    """A model that was never taught to end makes no revision that is whole, and is told so."""
    prompts = write(tmp_path / "prompts.jsonl", [{"prompt": "Hi"}])
    given = [f"--model={base}", f"--prompts={prompts}", f"--out={tmp_path / 'out'}", "--max_tokens=2"]
    assert main(["constitution", *given]) == 2
    assert "no pair came of 1 prompts (" in capsys.readouterr().err
