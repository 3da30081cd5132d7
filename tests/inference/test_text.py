"""Text given piece by piece: whole characters, and nothing of a stop text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedbed.inference.text import StopText
from seedbed.tokenizers import bytes as byte_tokenizer

TOKENIZER = byte_tokenizer.build()


class Pieces:
    """A stream whose tokens are texts themselves, so that a token's borders can be anywhere."""

    def push(self, token):
        return token

    def flush(self):
        return ""


def run(pieces, stops, stream=None):
    """What is given after each piece and at the end, and the StopText."""
    text = StopText(stream or Pieces(), stops)
    given = []
    for piece in pieces:
        given.append(text.push(piece))
        if text.stopped:
            break
    given.append(text.flush())
    return given, text


def cut_at_first_stop(text, stops):
    """The text before the stop text that is complete first."""
    for end in range(len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))]
    return text


TEXTS = st.text("abc", max_size=20)
STOPS = st.lists(st.text("abc", min_size=1, max_size=4), max_size=3)


@given(TEXTS, STOPS, st.data())
def test_the_text_ends_before_the_first_stop_wherever_tokens_end(text, stops, data):
    borders = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    pieces = [text[a:b] for a, b in zip([0, *borders], [*borders, len(text)], strict=True)]
    given, state = run(pieces, stops)
    assert "".join(given) == state.whole == cut_at_first_stop(text, stops)


@given(TEXTS, STOPS)
def test_text_is_held_back_only_while_a_stop_may_be_beginning(text, stops):
    state = StopText(Pieces(), stops)
    for place, character in enumerate(text):
        state.push(character)
        if state.stopped:
            break
        read = text[: place + 1]
        may_begin = [size for size in range(1, len(read) + 1) if any(s.startswith(read[-size:]) for s in stops)]
        assert state.whole == read[: len(read) - max(may_begin, default=0)]


@pytest.mark.parametrize("pieces", [["abEN", "Dcd"], ["ab", "E", "N", "D"], ["abENDEND"], ["abEND"]])
def test_a_stop_across_tokens_never_leaks(pieces):
    given, state = run(pieces, ["END"])
    assert "".join(given) == "ab"
    assert state.stopped


@given(st.text(st.characters(codec="utf-8"), max_size=6), st.text(max_size=4), st.text(max_size=4), STOPS)
def test_what_goes_on_in_two_ways_is_two_texts(begun, one, other, stops):
    """Wherever they part: inside a character, or inside a stop text."""
    tokens = TOKENIZER.encode(begun)
    for cut in range(len(tokens) + 1):
        first = StopText(TOKENIZER.stream(), stops)
        for token in tokens[:cut]:
            if not first.stopped:
                first.push(token)
        ways = {one: first, other: first.fork()}
        for rest, text in ways.items():
            for token in TOKENIZER.encode(rest):
                if not text.stopped:
                    text.push(token)
            text.flush()
        for rest, text in ways.items():
            assert text.whole == run([*tokens[:cut], *TOKENIZER.encode(rest)], stops, TOKENIZER.stream())[1].whole


def test_half_a_stop_is_given_when_nothing_follows():
    given, state = run(["abE", "N"], ["END"])
    assert given == ["ab", "", "EN"]
    assert not state.stopped


@given(st.text(st.characters(codec="utf-8"), max_size=12))
def test_no_piece_holds_half_a_character(text):
    given, state = run(TOKENIZER.encode(text), [], TOKENIZER.stream())
    assert "".join(given) == state.whole == text
    assert all(len(piece) <= 1 for piece in given)


def test_a_stop_of_several_bytes_is_found():
    given, state = run(TOKENIZER.encode("näh 木🌱 rest"), ["木🌱"], TOKENIZER.stream())
    assert "".join(given) == "näh "
    assert state.stopped


def test_an_unfinished_character_shows_at_the_end_only():
    given, _ = run(TOKENIZER.encode("a🌱")[:-1], [], TOKENIZER.stream())
    assert given == ["a", "", "", "", "\ufffd"]
