"""A text that is too long is cut where a reader would pause, and nothing of it is lost."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedbed.data.cleaning.dropped import Dropped
from seedbed.data.cleaning.lengths import check_length, split

LAID_OUT = st.text(st.sampled_from("ab \n\r\t."), max_size=2_000)


@given(LAID_OUT, st.integers(100, 400))
def test_parts_are_short_enough_and_joined_they_are_the_text(text, longest):
    counts = Counter()
    parts = split(text, longest, counts)
    assert "".join(parts) == text
    assert all(longest // 8 <= len(part) <= longest for part in parts) or parts == [text]
    assert counts == ({"split: too long": 1} if len(text) > longest else {})


def test_paragraphs_stay_whole_where_they_can():
    paragraph = "A sentence of some words. " * 6 + "\n\n"
    parts = split(paragraph * 100, 1_000, Counter())
    assert all(part.endswith("\n\n") and part.startswith("A sentence") for part in parts)
    assert min(map(len, parts)) >= 500


def test_no_crumb_is_left_at_the_end():
    assert min(map(len, split("a" * 998 + " bbb", 1_000, Counter()))) >= 125


@pytest.mark.parametrize("piece", ["a", "\n", " ", "\n ", "ab. "])
def test_splitting_takes_linear_time(piece):
    start = time.process_time()
    split(piece * (2_000_000 // len(piece)), 10_000, Counter())
    assert time.process_time() - start < 5


def test_a_short_text_is_dropped_and_white_space_does_not_help():
    check_length("a" * 50, 50)
    with pytest.raises(Dropped, match=r"^too short$"):
        check_length("a" * 49 + " \n" * 50, 50)
