"""Lines and paragraphs of a text, and which of them two texts share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedbed.data.deduplication.spans import find_spans
from seedbed.data.shingles import words


def pieces(text: str, lines: bool = False, paragraphs: bool = False) -> list[str]:
    return [text[begin:end] for begin, end in find_spans(text, lines, paragraphs)[2].tolist()]


TEXT = "\n\nOne two three\n  four five six\n\n \nseven\n\nand in the end"


def test_lines_of_three_words_are_found_with_their_line_ends():
    assert pieces(TEXT, lines=True) == ["One two three\n", "  four five six\n", "and in the end"]


def test_paragraphs_are_found_with_the_blank_lines_behind_them():
    assert pieces(TEXT, paragraphs=True) == ["One two three\n  four five six\n\n \n", "and in the end"]


@pytest.mark.parametrize("text", ["", "\n", " \n\n ", "—", "a b"])
def test_a_text_without_a_long_line_has_none(text):
    assert pieces(text, lines=True, paragraphs=True) == []


def test_spans_are_equal_where_their_words_are_and_lines_never_equal_paragraphs():
    _, hashes, _ = find_spans("One, TWO three\n\nx\n\none two — three!\n\nthree two one", lines=True, paragraphs=True)
    first, second, turned = hashes[:3].tolist()
    assert first == second != turned
    assert hashes[3] == hashes[4] != hashes[5]
    assert [value % 2 for value in hashes.tolist()] == [0, 0, 0, 1, 1, 1]


@given(st.text(st.sampled_from("ab \né木́.")))
def test_the_words_of_a_text_are_those_of_its_lines(text):
    assert find_spans(text, lines=True, paragraphs=True)[0] == words(text)
