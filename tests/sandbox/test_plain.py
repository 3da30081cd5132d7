"""Plain data between a program and its tests."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seedbed.sandbox.inside.plain import decode, encode, receive, send

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False)
KEYS = SCALARS | st.text() | st.binary()
PLAIN = st.recursive(
    KEYS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.sets(KEYS, max_size=3)
        | st.frozensets(KEYS, max_size=3)
    ),
)


def told(value):
    """What it is, to the types of all that is in it: 0, 0.0 and False are equal, and not the same."""
    kind = type(value).__name__
    if isinstance(value, dict):
        return kind, [(told(key), told(one)) for key, one in value.items()]
    if isinstance(value, set | frozenset):
        return kind, sorted(map(repr, map(told, value)))
    return kind, [told(one) for one in value] if isinstance(value, list | tuple) else repr(value)


@given(PLAIN)
@example(False)
@example([0, {False: 1.0}, {0.0}, (True,)])
def test_what_is_sent_arrives_alike_to_its_types(value):
    file = io.BytesIO()
    send(file, encode(value))
    file.seek(0)
    assert told(decode(receive(file))) == told(value)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=4)))
def test_of_any_text_comes_plain_data_or_an_exception(message):
    try:
        value = decode(json.loads(json.dumps(message)))
    except Exception:
        return
    assert type(value) in (type(None), bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict)


@pytest.mark.parametrize("value", [object(), len, iter([]), type, ..., [object()], {1: range(3)}])
def test_what_is_not_plain_is_refused(value):
    with pytest.raises(TypeError, match="not plain data"):
        encode(value)


def test_classes_of_a_program_arrive_as_what_they_are_made_of():
    class Sly(int):
        def __eq__(self, other):
            return True

        __hash__ = int.__hash__

    assert type(decode(encode(Sly(3)))) is int and decode(encode(Sly(3))) != 4


@pytest.mark.parametrize("data, error", [(b"", EOFError), (b"\0\0\0\x09[]", EOFError), (b"\xff" * 8, ValueError)])
def test_a_message_that_is_cut_off_or_too_long_is_refused(data, error):
    with pytest.raises(error):
        receive(io.BytesIO(data))
