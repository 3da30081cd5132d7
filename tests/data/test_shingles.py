"""Words, their hashes, and the hashes of their runs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seedbed.data import shingles
from seedbed.data.shingles import ngram_hashes, sequence_hashes, word_hashes, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  quick,\tBROWN-fox\n jumps_over 12.5!", ["the", "quick", "brown", "fox", "jumps_over", "12", "5"]),
        ("“Straße” — ﬁnd Ⅳ", ["strasse", "find", "iv"]),
        ("don’t don't", ["don", "t", "don", "t"]),
        ("exam\u00adple zero\u200bwidth", ["example", "zerowidth"]),
        ("हिन्दी की", ["हिन्दी", "की"]),
        ("日本語 text です", ["日", "本", "語", "text", "で", "す"]),
        ("𠀀𠀁", ["𠀀", "𠀁"]),
        ("❤️ 🌱 + = \ud800", []),
        ("", []),
    ],
)
def test_words_are_normalised_runs_of_letters(text, expected):
    assert words(text) == expected


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_gives_the_same_words_alone_and_among_other_characters(text):
    assert words(text + " é") == [*words(text), "é"]


@given(st.text())
@example("İ ǰ ΐ ﬃ")
def test_words_hold_no_space_and_survive_a_second_normalisation_of_white_space(text):
    found = words(text)
    assert all(found) and not any(character.isspace() for word in found for character in word)
    assert words("\n ".join(text.split("\n"))) == found


def test_hashes_are_the_same_everywhere():
    code = "from seedbed.data.shingles import *; print(word_hashes(['the', 'näh', '木']), end='')"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == str(word_hashes(["the", "näh", "木"]))
    assert word_hashes(["the", "näh", "木"]).tolist() == [
        13875303761372436102,
        15155619529132275567,
        9577722639911494245,
    ]


@given(st.lists(st.text("abñ木", min_size=1), max_size=60))
def test_equal_words_have_equal_hashes_and_others_do_not(tokens):
    hashes = word_hashes(tokens)
    assert len(hashes) == len(tokens)
    assert len(set(hashes.tolist())) == len(set(tokens))
    assert hashes.tolist() == [int(word_hashes([token])[0]) for token in tokens]


def test_hashing_in_pieces_changes_nothing(monkeypatch):
    tokens = [f"word{number}" for number in range(100)]
    whole = word_hashes(tokens)
    monkeypatch.setattr(shingles, "WORDS_AT_ONCE", 7)
    assert np.array_equal(word_hashes(tokens), whole)


@given(st.lists(st.sampled_from("ab"), max_size=30), st.integers(1, 6))
def test_runs_have_equal_hashes_where_their_words_are_equal(tokens, n):
    hashes = ngram_hashes(word_hashes(tokens), n).tolist()
    runs = [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
    assert len(hashes) == len(runs)
    assert len(set(zip(runs, hashes, strict=True))) == len(set(runs)) == len(set(hashes))


@given(st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=1, max_size=20), st.integers(0, 3))
def test_sequences_are_hashed_apart_wherever_they_stand(sequences, before):
    values = np.array([9] * before + [value for sequence in sequences for value in sequence], np.uint64)
    bounds = before + np.cumsum([0, *map(len, sequences)])
    hashes = sequence_hashes(values, bounds).tolist()
    assert len(set(zip(map(tuple, sequences), hashes, strict=True))) == len(set(map(tuple, sequences)))
    assert len(set(hashes)) == len(set(map(tuple, sequences)))
