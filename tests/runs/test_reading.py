"""JSON of strangers, in words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import pytest

from seedbed.errors import CorruptionError
from seedbed.runs import json_name, read_record, write_json


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


@dataclass(frozen=True)
class Measured:
    """A list among plain fields."""

    values: tuple[float, ...] = ()


def test_a_list_of_numbers_is_read_and_a_list_of_anything_else_is_refused(tmp_path):
    write_json(tmp_path / "a.json", {"values": [1, 2.5]})
    assert read_record(Measured, tmp_path / "a.json") == Measured((1.0, 2.5))
    for wrong in ([1, "2"], [[1]], [True], 3, {"a": 1}, "12"):
        write_json(tmp_path / "a.json", {"values": wrong})
        with pytest.raises(CorruptionError, match=r"a\.json: values must be a (list|number)"):
            read_record(Measured, tmp_path / "a.json")
