"""The whole of cleaning: off by default, in order, counted once each, quick on any text."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedbed.data.cleaning.cleaner import Cleaner
from seedbed.data.config import CleaningConfig

SENTENCES = (
    "The harbour was quiet when the last of the boats came in.",
    "Nobody on the quay had expected them to return that evening.",
    "A boy with a lantern ran to tell the keeper of the inn.",
    "He would have to light the fires and find bread for nine.",
    "Rain had begun to fall, and the wind that night was cold.",
    "They spoke of the storm only after they had eaten and slept.",
)
PROSE = " ".join(SENTENCES) + "\n"


def clean(text, **options):
    counts = Counter()
    return Cleaner(CleaningConfig(**options)).clean(text, counts), dict(counts)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmarks") / "exam.jsonl"
    path.write_text(
        json.dumps({"question": "Which of the nine sailors told the keeper of the inn about that storm?"}) + "\n"
    )
    return Cleaner(
        CleaningConfig(
            repair="suspect",
            control_characters=True,
            urls="strip",
            code_blocks="strip",
            languages=["en"],
            quality=["gopher", "c4"],
            repetition=True,
            benchmarks=[path],
            privacy=["key", "email", "card", "ip", "phone"],
            min_characters=50,
            max_characters=200,
        )
    )


@given(st.text())
def test_nothing_happens_by_default(text):
    assert clean(text) == ([text], {})


def test_every_rule_counts_each_event_once(everything):
    counts = Counter()
    text = (
        f"A heading\r\n\r\n{PROSE}\r\nIt wasnâ€™t far to www.example.com/inn, said the keeper of it.\u200b\r\n"
        "Write to jane@example.com or joe@example.com, or call +1 212 555 0123.\r\n```\nx = 1\n```\r\n"
    )
    parts = everything.clean(text, counts)
    joined = "".join(parts)
    assert joined.startswith(SENTENCES[0])
    assert "It wasn’t far to , said the keeper of it.\n" in joined
    assert joined.endswith("Write to <email> or <email>, or call <phone>.")
    assert counts == {
        "mended: repair": 1,
        "mended: control characters": 1,
        "stripped: web address": 1,
        "stripped: code block": 1,
        "stripped: c4 line": 1,
        "masked: email": 2,
        "masked: phone": 1,
        "split: too long": 1,
    }


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("language", "Der Hafen war still, als die letzten Boote kamen. Niemand hatte sie an jenem Abend erwartet."),
        ("gopher word count", SENTENCES[0]),
        ("c4 curly bracket", PROSE + "{"),
        ("one 2-gram repeats", PROSE + "said the sailor. " * 40),
        ("benchmark exam.jsonl", PROSE + "Which of the nine sailors told the keeper of the inn about that storm?"),
    ],
)
def test_a_dropped_text_leaves_nothing_but_its_reason(everything, reason, text):
    counts = Counter()
    assert everything.clean(text, counts) == []
    assert counts == {f"dropped: {reason}": 1}


def test_cleaning_depends_on_the_text_alone(everything):
    texts = [PROSE, PROSE + "{", "schÃ¶n " * 60, PROSE * 3, "jane@example.com " + PROSE]
    alone = [everything.clean(text, Counter()) for text in texts]
    assert [everything.clean(text, Counter()) for text in reversed(texts)] == alone[::-1]


def test_masks_do_not_hide_a_benchmark(tmp_path):
    question = "Ann may be reached at ann@example.com by day and at 212-555-0123 at night. Where is Ann?"
    path = tmp_path / "exam.txt"
    path.write_text(question)
    _, counts = clean(question, benchmarks=[path], privacy=["email", "phone"])
    assert counts == {"dropped: benchmark exam.txt": 1}


@pytest.mark.parametrize(
    ("text", "stripped", "count"),
    [
        ("See https://example.com/a?b=c#d.", "See .", 1),
        ("A [link](https://example.com) and <http://example.com/x>!", "A [link] and !", 2),
        ("WWW.EXAMPLE.COM, ftp://example.com/file", ", ", 2),
        ("见https://example.com/a", "见", 1),
        ("awww. www.. http:// :// a://b", "awww. www.. http:// :// a://b", 0),
    ],
)
def test_web_addresses_are_stripped(text, stripped, count):
    assert clean(text, urls="strip") == ([stripped], {"stripped: web address": count} if count else {})


@pytest.mark.parametrize(
    ("text", "stripped", "count"),
    [
        ("a\n```python\nx = 1\n```\nb\n", "a\nb\n", 1),
        ("a\n~~~\n```\n~~~~\nb\n  ````\n```\n````", "a\nb\n", 2),
        ("a\n```\nnever closed\n", "a\n```\nnever closed\n", 0),
        ("a\u2028```\nb\n```\u2028c\n", "a\u2028```\nb\n```\u2028c\n", 0),
        ("a\r\n```\r\nx\r\n```\r\nb\r\n", "a\r\nb\r\n", 1),
        ("a ``` b\n```code``` in a line\n", "a ``` b\n```code``` in a line\n", 0),
    ],
)
def test_fenced_code_is_stripped(text, stripped, count):
    assert clean(text, code_blocks="strip") == ([stripped], {"stripped: code block": count} if count else {})


def test_what_nobody_sees_is_removed_and_what_spells_words_stays():
    text = "\ufeffa\0b\x07\u200bc\u00add\u202ee\x7f\x85"
    assert clean(text, control_characters=True) == (["abcde"], {"mended: control characters": 1})
    kept = "line\r\n\ttab می\u200cخواهم 👩\u200d🚀"
    assert clean(kept, control_characters=True) == ([kept], {})


PIECES = ["a", "a ", "a\n", "\n", " ", "1", ".", "<", "&", "&a", "é", "â€", "```\n", "```a\n", "~~~", "http://", "www.",
          "(http://", "<www.", "[", "[1", "word. ", "...", "{"]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("quality", ["gopher", "c4"])
def test_no_text_is_slow(piece, quality):
    text = piece * (200_000 // len(piece)) + "://"
    options = {"repair": "suspect", "control_characters": True, "urls": "strip", "code_blocks": "strip"}
    start = time.process_time()
    clean(text, quality=[quality], max_characters=10_000, **options)
    clean(text, repetition=True)
    assert time.process_time() - start < 4


def test_the_web_preset_switches_every_rule_on():
    from seedbed.cli import parser

    config = parser("prepare").read(["--config", "data/web", "--out", "x"]).config
    every = get_args(get_args(get_type_hints(CleaningConfig)["privacy"])[0])
    assert sorted(config.clean.privacy) == sorted(every)
    assert (config.clean.repair, config.clean.control_characters, config.clean.repetition) == ("suspect", True, True)
    assert (config.clean.quality, config.clean.languages) == (["gopher", "c4"], ["en"])
    assert (config.clean.min_characters, config.clean.max_characters) == (50, 10_000)
    assert (config.deduplicate.exact, config.deduplicate.near) == (True, 0.8)
