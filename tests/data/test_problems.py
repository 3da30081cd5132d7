"""Prompts of problems as tokens: nothing cut in silence."""

from __future__ import annotations

import pytest

from seedbed.data.preferences import Problem
from seedbed.data.problems import ProblemEncoder
from seedbed.errors import ConfigError, DataError
from seedbed.tokenizers.bytes import build
from seedbed.tokenizers.chat import encode_prompt


def problem(prompt):
    return Problem("q.jsonl, row 7", [{"role": "user", "content": prompt}], "4", "exact", ())


def only(encoded):
    (one,) = encoded
    return one


LONG = problem("0123456789" * 3)
TOKENS = 1 + len("0user\n") + 30 + 1 + len("\n0assistant\n")
"""Of bytes: each special token is one."""


def test_what_just_fits_is_whole_and_the_problem_goes_along():
    encoder = ProblemEncoder(build(), TOKENS)
    encoded = only(encoder.problems([LONG]))
    assert encoded.problem is LONG
    assert encoded.prompt.tolist() == encode_prompt(encoder.tokenizer, LONG.prompt) and len(encoded.prompt) == TOKENS
    assert encoder.counts == {"kept": 1}


def test_what_is_too_long_is_an_error_that_names_the_row():
    with pytest.raises(DataError, match=f"q.jsonl, row 7: it has {TOKENS} tokens, {TOKENS - 1} are allowed"):
        list(ProblemEncoder(build(), TOKENS - 1).problems([LONG]))


def test_what_is_too_long_is_dropped_and_counted():
    encoder = ProblemEncoder(build(), TOKENS - 1, overlong="drop")
    assert only(encoder.problems([LONG, problem("a")])).problem.prompt[0]["content"] == "a"
    assert encoder.counts == {"too long": 1, "kept": 1}


@pytest.mark.parametrize("less", [1, 5, TOKENS - 2])
def test_a_prompt_loses_its_beginning_but_the_first_token(less):
    encoder = ProblemEncoder(build(), TOKENS - less, overlong="truncate")
    whole = encode_prompt(encoder.tokenizer, LONG.prompt)
    assert only(encoder.problems([LONG])).prompt.tolist() == [whole[0], *whole[1 + less :]]
    assert encoder.counts == {"truncated": 1, "kept": 1}


def test_a_length_that_holds_nothing_is_refused():
    with pytest.raises(ConfigError, match="length must be at least 2, got 1"):
        ProblemEncoder(build(), 1)


def test_a_template_that_cannot_render_a_row_names_it():
    refusing = build().with_template("{{ raise_exception('no') }}")
    with pytest.raises(DataError, match=r"q\.jsonl, row 7: the chat template refuses the conversation: no"):
        list(ProblemEncoder(refusing, 100).problems([LONG]))
