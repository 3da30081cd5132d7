"""JSON of strangers, in words."""

from __future__ import annotations

from datetime import date

import pytest

from seedbed.runs import json_name


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"a": 1}, "an object"),
        ([], "a list"),
        ("two\nlines", r'a text ("two\nlines")'),
        ("a" * 50, f'a text ("{"a" * 40}"…)'),
        (None, "null"),
        (True, "true"),
        (3, "3"),
        (0.5, "0.5"),
        (10**50, f"1{'0' * 39}…"),
        (date(2024, 1, 1), "date"),
        (b"raw", "bytes"),
    ],
)
def test_a_value_is_named_as_a_person_would(value, name):
    assert json_name(value) == name
