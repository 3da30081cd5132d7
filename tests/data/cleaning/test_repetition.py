"""Repetition is measured as a plain reading of the table measures it, and dropped at the table's limits."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedbed.data.cleaning.dropped import Dropped
from seedbed.data.cleaning.repetition import REPEATED, TOP, check_repetition, repeated_characters, top_characters
from seedbed.data.shingles import ngram_hashes, word_hashes, words

WORDS = st.lists(st.sampled_from(["a", "bb", "ccc", "dddd", "e"]), max_size=60) | st.lists(
    st.sampled_from([f"word{number}" for number in range(20)]), max_size=60
)


def ngrams_of(found, n):
    return [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]


def plain_top(found, n):
    counts = Counter(ngrams_of(found, n))
    most = max(counts.values(), default=0)
    return max((most * len(" ".join(ngram)) for ngram in counts if counts[ngram] == most), default=0) if most > 1 else 0


def plain_repeated(found, n):
    seen, covered = set(), set()
    for place, ngram in enumerate(ngrams_of(found, n)):
        if ngram in seen:
            covered.update(range(place, place + n))
        seen.add(ngram)
    return sum(len(found[place]) for place in covered)


def plain_check(text):
    """The rules in the order of the code, one by one, without any shortcut."""
    for name, pieces in (("paragraphs", text.split("\n\n")), ("lines", text.split("\n"))):
        pieces = [piece.strip() for piece in pieces if piece.strip()]
        repeats = [piece for place, piece in enumerate(pieces) if piece in pieces[:place]]
        if len(repeats) > 0.3 * len(pieces):
            return f"{name} repeat"
        if sum(map(len, repeats)) > 0.2 * len(text):
            return f"characters of {name} repeat"
    found = words(text)
    for n, limit in TOP.items():
        if plain_top(found, n) > limit * len(text):
            return f"one {n}-gram repeats"
    for n, limit in REPEATED.items():
        if plain_repeated(found, n) > limit * len(text):
            return f"{n}-grams repeat"
    return None


def verdict(text):
    found = words(text)
    try:
        check_repetition(text, found, word_hashes(found))
    except Dropped as reason:
        return str(reason)
    return None


@given(WORDS, st.integers(1, 10))
def test_shares_are_those_of_a_plain_count(found, n):
    hashes = ngram_hashes(word_hashes(found), n)
    lengths = np.array([len(word) for word in found], np.int64)
    assert top_characters(hashes, lengths, n) == plain_top(found, n)
    assert repeated_characters(hashes, lengths, n) == plain_repeated(found, n)


@settings(max_examples=300)
@given(
    WORDS, st.lists(st.sampled_from([" ", " ", " ", " ", "\n", "\n\n"]), min_size=60, max_size=60), st.integers(0, 4)
)
def test_verdicts_are_those_of_a_plain_check(found, gaps, extra):
    text = "".join(word + gap for word, gap in zip(found, gaps, strict=False))
    text += " ".join(f"unique{number}" for number in range(extra * 10))
    assert verdict(text) == plain_check(text)


FILLER = [f"filler{number}" for number in range(1_000)]
LONG = [word * 4 for word in FILLER]


def test_every_limit_of_the_table_drops_some_text():
    """A run of words that returns once, in more and more others: it crosses one limit after the other."""
    reasons = set()
    for length in (5, 6, 7, 8, 9, 40):
        run = " ".join(f"w{place}" for place in range(length))
        for others in range(0, 400, 6):
            text = f"{run} {' '.join(FILLER[:others])} {run}"
            reasons.add(verdict(text))
            assert verdict(text) == plain_check(text)
    assert reasons >= {None, *(f"{n}-grams repeat" for n in (5, 10))}


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("lines repeat", "\n".join([*["ab"] * 6, *LONG[:10]])),
        ("characters of lines repeat", "\n".join(["a rather long line that returns here"] * 2 + FILLER[:8])),
        ("paragraphs repeat", "\n\n".join([*["ab"] * 6, *LONG[:10]])),
        ("characters of paragraphs repeat", "\n\n".join(["a rather long line that returns here"] * 2 + FILLER[:8])),
        ("one 2-gram repeats", " ".join(f"over again {word}" for word in FILLER[:20])),
    ],
)
def test_what_repeats_is_named(reason, text):
    assert verdict(text) == reason


def test_short_and_empty_texts_are_not_repetition():
    assert [verdict(text) for text in ("", " ", "one", "one two", "A short text is not dropped.")] == [None] * 5
