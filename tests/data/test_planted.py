"""What the plan data/web makes of a corpus with planted problems: every copy, secret and benchmark row is found, and
nothing else goes."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from benchmarks.planted import LONGEST_ROW, Row, judge, plant, read_kept, similar_pairs, write_source

from seedbed.configuration import from_arguments
from seedbed.data.config import PrepareConfig
from seedbed.data.prepare import prepare
from seedbed.errors import DataError
from seedbed.shards import read_rows

EACH = 40
WORDS = re.findall(
    r"\w+",
    "the of and to that with have be in a for was on they had from were which there been who when what into some "
    "could them then about after before other many great little house river garden morning evening winter summer "
    "people children mother father brother sister letter window street village mountain forest kitchen table paper "
    "story question answer reason journey captain doctor teacher farmer soldier stranger neighbour friend master "
    "servant horse dog bread water fire stone silver golden quiet sudden heavy narrow broken empty gentle bitter "
    "honest foolish slowly quickly almost always never often perhaps together walked carried opened waited listened "
    "remembered followed promised returned believed gathered measured wondered answered looked turned thought found "
    "brought seemed became",
)
STOP_WORDS = 8


def some_texts(count: int) -> list[str]:
    """Texts that read like English to every rule: three paragraphs of sentences of common words, stop words at that."""
    draw = random.Random(count)
    weights = [4] * STOP_WORDS + [1] * (len(WORDS) - STOP_WORDS)

    def sentence() -> str:
        return " ".join(draw.choices(WORDS, weights, k=draw.randrange(8, 15))).capitalize() + "."

    def paragraph() -> str:
        return " ".join(sentence() for _ in range(draw.randrange(4, 7)))

    return ["\n\n".join(paragraph() for _ in range(3)) for _ in range(count)]


def config(place: Path, out: Path, *arguments: str) -> PrepareConfig:
    return from_arguments(
        PrepareConfig,
        [
            *("--config", "data/web", "--source", str(place / "source"), "--out", str(out)),
            *("--clean.benchmarks", str(place / "exam.jsonl"), "--workers", "1", *arguments),
        ],
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> tuple[Path, list[Row], dict[str, int], dict[str, Any]]:
    """Where the corpus is, what was planted, what of it cannot be read by reason, and the result of prepare."""
    place = tmp_path_factory.mktemp("planted")
    draw = random.Random(1)
    questions = [" ".join(draw.sample(WORDS, 20)).capitalize() + "?" for _ in range(EACH)]
    exam = [{"question": question, "answer": str(i)} for i, question in enumerate(questions)]
    (place / "exam.jsonl").write_text("".join(json.dumps(row) + "\n" for row in exam))
    rows = plant(some_texts(12 * EACH), questions, EACH)
    bad = write_source(place / "source", rows)
    reading = ("--reading.max_bad_fraction", "0.5", "--reading.longest_row", str(LONGEST_ROW))
    return place, rows, bad, prepare(config(place, place / "corpus", *reading))


def test_every_planted_problem_is_found_and_nothing_else_goes(prepared):
    place, rows, _, result = prepared
    figures = judge(rows, read_kept(place / "corpus"))
    assert figures["near_pairs"] >= 0.9 * EACH
    assert figures["recall"] >= 0.95
    assert figures["false_drops"] <= 0.01
    assert figures["missed"] == {} and figures["lost"] == 0
    assert result["dropped"]["exact duplicate"] == 2 * EACH
    assert result["dropped"]["language"] >= EACH  # by this rule, and not by another that they fail too
    assert result["dropped"]["benchmark exam.jsonl"] == EACH
    assert result["masked"] == dict.fromkeys(["card", "email", "ip", "key", "phone"], EACH)


def test_rows_that_cannot_be_read_are_counted_by_reason_and_kept_in_a_file(prepared):
    place, rows, bad, result = prepared
    assert result["bad"] == bad
    rejects = list(read_rows(place / "corpus" / "rejects.jsonl"))
    assert sorted(reject["reason"] for reject in rejects) == list(bad)
    lines = [int(reject["name"].partition(":")[2]) for reject in rejects if reject["name"].startswith("planted")]
    assert lines == list(range(len(rows) + 1, len(rows) + len(bad)))


def test_more_bad_rows_than_the_plan_accepts_stop_it_with_the_reasons(prepared, tmp_path):
    place = prepared[0]
    with pytest.raises(DataError, match=r"records cannot be read: .*null: 1.*\n.*--reading.max_bad_fraction 0\.0"):
        rows = ("--source", str(place / "source" / "planted.jsonl"), "--reading.longest_row", str(LONGEST_ROW))
        prepare(config(place, tmp_path / "corpus", *rows, "--reading.max_bad_fraction=0.001"))
    assert [path.name for path in tmp_path.iterdir()] == [".corpus.units"]  # what is done serves a plan that takes more


def test_the_judge_sees_what_a_blind_prepare_would_leave():
    """The oracle can fail: of a corpus that keeps everything as it is, and of one that drops a text like no other."""
    rows = plant(some_texts(12 * EACH), ["Which of them was it?"], EACH)
    everything = {i + 1: row.text for i, row in enumerate(rows)}
    figures = judge(rows, everything | {1: rows[0].text})
    assert figures["recall"] == 0
    counts = {"contaminated": EACH, "exact": EACH, "foreign": EACH, "junk": EACH, "mojibake": EACH}
    assert figures["missed"] == counts | {"private": 5 * EACH, "recased": EACH}
    alone = next(i for i, row in enumerate(rows) if row.kind == "private")
    assert judge(rows, {i: text for i, text in everything.items() if i != alone + 1})["false_drops"] == 1


def test_brute_force_similarity_is_the_definition():
    assert similar_pairs(["a b c d e f", "A b, c d e!", "x"], 0.1) == {(0, 1): 0.5}
