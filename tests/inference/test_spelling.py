"""Tokens as llguidance is told of them: their bytes are the text's, whatever the tokenizer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedbed.inference.spelling import Spelling, spelling_of
from tests.inference.small_tokenizers import TOKENIZERS


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=st.text() | st.text("the names of木\n"))
def test_a_text_is_spelled_in_its_own_bytes(name, text):
    tokenizer = TOKENIZERS[name]
    spelling = Spelling(tokenizer, tokenizer.vocab_size)
    ids = spelling(text.encode())
    assert b"".join(spelling.tokens[id] for id in ids) == text.encode()
    if tokenizer.decode(tokenizer.encode(text)) == text:
        assert ids == tokenizer.encode(text)
    else:
        assert max(ids) >= tokenizer.vocab_size  # what it has no token for


@pytest.mark.parametrize("name", TOKENIZERS)
def test_special_tokens_have_no_bytes(name):
    tokenizer = TOKENIZERS[name]
    spelling = Spelling(tokenizer, tokenizer.vocab_size)
    assert {spelling.tokens[id] for id in tokenizer.special_ids.values()} <= {b""}
    assert not any(b"\xff" in token for token in spelling.tokens)
    made = spelling_of(tokenizer, tokenizer.vocab_size)
    assert made.eos_tokens == list(tokenizer.end_ids or [256])


def test_a_smaller_model_spells_with_the_tokens_it_has():
    tokenizer = TOKENIZERS["byte_pair"]
    spelling = Spelling(tokenizer, 265)  # specials, bytes and the first merges
    assert max(tokenizer.encode("the names")) >= 265
    ids = spelling(b"the names")
    assert max(ids) < 265 and b"".join(spelling.tokens[id] for id in ids) == b"the names"


def test_without_an_end_there_is_one_behind_the_vocabulary():
    for name in ("bytes", "bytes alone"):
        assert Spelling(TOKENIZERS[name], 256).end_ids == [256]  # and no token for 0xff, which no text holds
