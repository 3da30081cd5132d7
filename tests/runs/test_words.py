"""How results read for people."""

from __future__ import annotations

import pytest

from seedbed.runs import words


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (1234567, "1,234,567"),
        (0.123456, "0.1235"),
        (123456.7, "123,457"),
        (2.0, "2"),
        (-1999.6, "-2,000"),
        (True, "yes"),
        ("runs/a_b", "runs/a_b"),
    ],
)
def test_values_have_four_digits_and_thousands_are_told_apart(value, told):
    assert words.value(value) == told


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("units", "target tokens"),
        ("tasks.bits_per_byte.perplexity", "tasks, bits per byte, perplexity a token"),
        ("skills_exact", "answered exactly"),
        ("by_skill.looking_up", "by skill, looking up"),
    ],
)
def test_keys_are_words(key, told):
    assert words.name(key) == told
