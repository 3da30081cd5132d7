"""Words and n-grams are the same however a text is laid out, and different when it is different."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from seedbed.data import shingles
from seedbed.data.shingles import ngram_hashes, word_hashes, words


@given(st.text() | st.text(st.characters(max_codepoint=127)))
def test_words_are_runs_of_letters_and_figures_in_lower_case(text):
    assert words(text) == re.findall(r"\w+", text.lower())


def test_case_punctuation_and_white_space_make_no_difference():
    assert words("“It’s — well,\n3 CATS!”") == words("it's well 3   cats") == ["it", "s", "well", "3", "cats"]


@given(st.lists(st.sampled_from("abcd"), max_size=40), st.integers(1, 14))
def test_ngrams_are_equal_just_where_their_words_are(letters, n):
    hashes = ngram_hashes(word_hashes(letters), n)
    assert hashes.dtype == np.uint64
    ngrams = [tuple(letters[i : i + n]) for i in range(len(letters) - n + 1)]
    assert len(hashes) == len(ngrams)
    assert len(set(hashes.tolist())) == len(set(ngrams))


def test_the_memory_of_words_is_bounded_and_does_not_change_hashes(monkeypatch):
    many = [str(number) for number in range(100)]
    before = word_hashes(many)
    monkeypatch.setattr(shingles._HASHES, "most", 10)
    assert (word_hashes(many) == before).all()
    word_hashes(["one"])
    assert len(shingles._HASHES) == 1
