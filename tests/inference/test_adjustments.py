"""What a request changes in the scores, against plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seedbed.inference.adjustments import Adjustments, penalised
from seedbed.inference.config import SamplingConfig

CPU = torch.device("cpu")
TOKENS = st.lists(st.integers(0, 5), max_size=12)
SCORES = st.lists(st.floats(-5, 5, width=32), min_size=6, max_size=6)


def adjusted(logits, prompt, made, **setting):
    one = Adjustments(SamplingConfig(**setting), prompt, len(logits), CPU)
    for token in made:
        one.add(token)
    return one(torch.tensor(logits)).tolist()


def test_the_penalty_follows_its_formula():
    assert penalised(torch.tensor([2.0, -2.0, 0.0]), 4.0).tolist() == [0.5, -8.0, 0.0]


@given(SCORES, TOKENS, TOKENS, st.floats(0.1, 5))
def test_repetition_is_of_prompt_and_continuation(logits, prompt, made, penalty):
    wanted = [
        (score / penalty if score > 0 else score * penalty) if token in [*prompt, *made] else score
        for token, score in enumerate(logits)
    ]
    assert adjusted(logits, prompt, made, repetition_penalty=penalty) == pytest.approx(wanted, abs=1e-4)


@given(SCORES, TOKENS, TOKENS, st.floats(-2, 2), st.floats(-2, 2))
def test_presence_and_frequency_are_of_the_continuation_alone(logits, prompt, made, presence, frequency):
    wanted = [score - frequency * made.count(token) - presence * (token in made) for token, score in enumerate(logits)]
    found = adjusted(logits, prompt, made, presence_penalty=presence, frequency_penalty=frequency)
    assert found == pytest.approx(wanted, abs=1e-4)


@given(TOKENS, TOKENS, st.integers(1, 4))
def test_what_would_repeat_an_ngram_is_impossible_and_nothing_else(prompt, made, size):
    tokens = [*prompt, *made]
    ngrams = {tuple(tokens[first : first + size]) for first in range(len(tokens) - size + 1)}
    found = adjusted([0.0] * 6, prompt, made, no_repeat_ngram=size)
    begun = tokens[len(tokens) - (size - 1) :] if len(tokens) >= size - 1 else None
    wanted = [-math.inf if begun is not None and (*begun, token) in ngrams else 0.0 for token in range(6)]
    assert found == wanted


def test_a_bias_is_added_to_the_token_with_its_id():
    assert adjusted([1.0, 2.0, 3.0], [], [], logit_bias={"1": 5.0, "2": -100.0}) == [1.0, 7.0, -97.0]


def test_the_scores_stay_as_they_were_for_others():
    logits_V = torch.zeros(6)
    one = Adjustments(SamplingConfig(no_repeat_ngram=1), [3], 6, CPU)
    assert one(logits_V)[3] == -math.inf and not logits_V.any()


def test_two_that_were_told_the_same_are_told_different_things_from_then_on():
    def told(*made, fork_after=None):
        config = SamplingConfig(no_repeat_ngram=2, frequency_penalty=1, repetition_penalty=2)
        one = Adjustments(config, [1, 2], 6, CPU)
        others = []
        for number, token in enumerate(made):
            if number == fork_after:
                others.append(one.fork())
                others[0].add(5)
            one.add(token)
        return [each(torch.ones(6)).tolist() for each in (one, *others)]

    assert told(3, 1, 4, 1, fork_after=2) == [*told(3, 1, 4, 1), *told(3, 1, 5)]


def test_who_changes_nothing_has_none():
    assert Adjustments.of(SamplingConfig(top_k=3), [1], 6, CPU) is None
    assert Adjustments.of(SamplingConfig(presence_penalty=0.1), [1], 6, CPU) is not None
