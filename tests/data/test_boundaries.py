"""A text is cut where a reader would pause."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from seedbed.data.boundaries import last_boundary, paragraph_boundary

LAID_OUT = st.text(st.sampled_from("ab \n\r\t."), max_size=2_000)


@given(LAID_OUT.filter(lambda text: len(text) > 1), st.integers(-5, 500))
def test_a_cut_is_always_inside(text, near):
    assert 0 < paragraph_boundary(text, near) < len(text)


def test_a_cut_prefers_blank_lines_then_lines_then_words():
    assert paragraph_boundary("a" * 40 + "\n\n" + "b" * 40, 41) == 42
    assert paragraph_boundary("a" * 40 + "\r\n\r\n" + "b" * 40, 41) == 44
    assert paragraph_boundary("a a" * 20 + "\n" + "b b" * 20, 60) == 61
    assert paragraph_boundary("word " * 10, 22) in (20, 25)
    assert paragraph_boundary("a" * 100, 37) == 37


def test_bytes_are_cut_after_the_last_blank_line_line_or_space_within_the_limit():
    assert last_boundary(b"a" * 80 + b"\n\n" + b"b\nb b" * 20, 100) == 82
    assert last_boundary(b"a" * 80 + b"\n" + b"b b" * 20, 100) == 81
    assert last_boundary(b"word " * 50, 102) == 100
    assert last_boundary(b"a\n" * 10 + b"a" * 100, 100) == 100


@given(st.text(st.sampled_from("aäの🌱"), min_size=60), st.integers(4, 59))
def test_bytes_are_never_cut_inside_a_character(text, limit):
    data = text.encode()
    at = last_boundary(data, limit)
    assert 0 < at <= limit
    assert data[:at].decode() + data[at:].decode() == text
