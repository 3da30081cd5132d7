"""A text that holds a row of a benchmark goes, whatever the benchmark's file looks like, and nothing else goes."""

from __future__ import annotations

import csv
import gzip
import json
import time

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from seedbed.data.cleaning.contamination import Contamination
from seedbed.data.cleaning.dropped import Dropped
from seedbed.data.shingles import word_hashes, words
from seedbed.errors import SeedbedError

QUESTION = "Juan and LaKeisha roll a few objects down a ramp, and they want to see which rolls the farthest."
CHOICE = "Record all the details of the investigation with care."  # 9 words
SHORT = "They all moved to New York then."  # 7 words
ROW = {
    "id": "Mercury_1",
    "question": QUESTION,
    "choices": {"text": ["Two.", CHOICE, SHORT], "label": ["A", "B"]},
    "n": 1,
}
FILLER = " ".join(f"word{number}" for number in range(60))


def write(folder, name):
    path = folder / name
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROW]), path)
    elif name.endswith(".csv"):
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([["id", "question", "choice"], ["1", QUESTION, CHOICE], ["2", "", SHORT]])
    elif name.endswith(".txt"):
        path.write_text(f"{QUESTION}\n{CHOICE}\n\n{SHORT}\n")
    elif name == "object.json":
        path.write_text(json.dumps({"version": "1", "data": [ROW]}))
    elif name.endswith(".txt.gz"):
        path.write_bytes(gzip.compress(f"\ufeff{QUESTION}\r\n{CHOICE}\r\n{SHORT}".encode()))
    elif name.endswith(".json"):
        path.write_text(json.dumps([{"questions": {QUESTION: 1}}, [[ROW]]]))
    elif name.endswith(".zst"):
        path.write_bytes(zstandard.compress((json.dumps(ROW) + "\n").encode()))
    else:
        path.write_text(json.dumps(ROW) + "\n")
    return path


def check(contamination, text):
    """The reason for which a text is dropped, or None."""
    try:
        contamination.check(word_hashes(words(text)))
    except Dropped as reason:
        return str(reason)
    return None


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.jsonl.zst", "a.json", "a.csv", "a.parquet", "a.txt", "A.JSONL", "object.json", "a.txt.gz"]
)
def test_every_kind_of_file_yields_its_rows(tmp_path, name):
    contamination = Contamination([write(tmp_path, name)], 13)
    reason = f"benchmark {name}"
    assert check(contamination, f"{FILLER}\n{QUESTION}\n{FILLER}") == reason
    assert check(contamination, f"{FILLER} {CHOICE.upper().replace(' ', '  ')} {FILLER}") == reason
    assert check(contamination, FILLER + SHORT) is None
    assert check(contamination, FILLER) is None
    assert check(contamination, "") is None


def test_thirteen_words_in_a_row_are_needed_and_enough(tmp_path):
    contamination = Contamination([write(tmp_path, "a.jsonl")], 13)
    found = QUESTION.split()
    for start in range(len(found) - 12):
        assert check(contamination, f"{FILLER} {' '.join(found[start : start + 13])} {FILLER}") is not None
        assert check(contamination, f"{FILLER} {' '.join(found[start : start + 12])} {FILLER}") is None
    for count in range(8, 13):
        assert check(contamination, f"{FILLER} {' '.join(found[-count:])} {FILLER}") is None
    choice = CHOICE.split()
    assert check(contamination, f"{FILLER} {' '.join(choice[:-1])} {FILLER}") is None


def test_the_first_benchmark_that_has_a_row_is_named(tmp_path):
    one, two = write(tmp_path, "one.jsonl"), tmp_path / "two.txt"
    two.write_text(f"{CHOICE}\nThis other question stands in the second of the two files and nowhere else.\n")
    both = Contamination([two, one], 13)
    assert check(both, CHOICE) == "benchmark two.txt"
    assert check(both, QUESTION) == "benchmark one.jsonl"
    assert check(Contamination([one, two], 13), CHOICE) == "benchmark one.jsonl"


LETTERS = st.lists(st.sampled_from("abc"), max_size=12).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(st.lists(LETTERS, min_size=1, max_size=5), st.lists(st.sampled_from("abc"), max_size=40), st.integers(2, 10))
def test_it_finds_what_a_plain_search_finds(tmp_path_factory, items, text, length):
    path = tmp_path_factory.mktemp("plain") / "items.txt"
    path.write_text("\n".join(items))
    runs = set()
    for item in map(str.split, items):
        if len(item) >= length:
            runs |= {tuple(item[place : place + length]) for place in range(len(item) - length + 1)}
        elif len(item) >= 8:
            runs.add(tuple(item))
    if not runs:
        with pytest.raises(SeedbedError, match="no text of"):
            Contamination([path], length)
        return
    plain = any(tuple(text[place : place + len(run)]) == run for run in runs for place in range(len(text)))
    assert (check(Contamination([path], length), " ".join(text)) is not None) == plain


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jsonl", "", "holds no text of 8 words or more to look for"),
        ("empty.txt", "\n\n", "holds no text of 8 words"),
        ("short.jsonl", '{"text": "too short to tell"}\n', "holds no text of 8 words"),
        ("null.json", "null", "holds no text of 8 words"),
        ("broken.jsonl", '{"text": \n', "row 1: not valid JSON"),
        ("broken.json", "{", "is not valid JSON"),
        ("broken.parquet", "PAR1", "not Parquet that can be read"),
        ("latin.txt", b"\xe9", "latin.txt, row 1: not UTF-8"),
        ("table.xlsx", "x", "no kind of benchmark file"),
        ("missing.jsonl", None, "cannot read .*missing.jsonl: No such file"),
        ("missing.csv", None, "cannot read .*missing.csv: No such file"),
    ],
)
def test_a_file_that_would_pass_in_silence_is_an_error(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SeedbedError, match=message):
        Contamination([write(tmp_path, "good.jsonl"), path], 13)


def test_a_text_full_of_beginnings_is_not_slow(tmp_path):
    contamination = Contamination([write(tmp_path, "a.jsonl")], 13)
    hashes = word_hashes(words((" ".join(QUESTION.split()[:12]) + " ") * 20_000))
    start = time.process_time()
    contamination.check(hashes)
    assert time.process_time() - start < 2
