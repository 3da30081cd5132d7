"""Choosing a token: against closed forms, written out in plain Python.

Shape suffixes: B rows, V vocabulary.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seedbed.errors import ConfigError
from seedbed.inference.config import ChatConfig, SamplingConfig
from seedbed.inference.sampling import choose, invert, uniform

LOGITS = [2.0, -1.0, 0.5, 1.7, -0.3, 0.0, 2.4, -2.5, 1.1, 0.9]
CHI_SQUARE = {1: 19.5, 2: 23.0, 3: 25.9, 4: 28.5, 5: 30.9, 6: 33.1, 7: 35.3, 8: 37.3, 9: 39.3}
"""What a chance of 1 in 100,000 exceeds, by degrees of freedom."""


def softmax(logits):
    weights = [math.exp(logit) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def among(kept, probabilities):
    """The distribution when only the tokens `kept` may be chosen."""
    mass = sum(probabilities[token] for token in kept)
    return [probability / mass if token in kept else 0.0 for token, probability in enumerate(probabilities)]


def likeliest(probabilities):
    return sorted(range(len(probabilities)), key=lambda token: -probabilities[token])


def nucleus(probabilities, mass):
    kept = []
    for token in likeliest(probabilities):
        kept.append(token)
        if sum(probabilities[t] for t in kept) >= mass:
            return kept
    return kept


def typical(probabilities, mass):
    possible = [token for token, probability in enumerate(probabilities) if probability > 0]
    entropy = -sum(probabilities[token] * math.log(probabilities[token]) for token in possible)
    kept = []
    for token in sorted(possible, key=lambda token: abs(-math.log(probabilities[token]) - entropy)):
        kept.append(token)
        if sum(probabilities[t] for t in kept) >= mass:
            return kept
    return kept


P = softmax(LOGITS)
SHARP = softmax([logit / 0.6 for logit in LOGITS])
TOP_4 = among(likeliest(P)[:4], P)
CASES = {
    "as it is": ({"temperature": 1.0}, P),
    "sharper": ({"temperature": 0.6}, SHARP),
    "flatter": ({"temperature": 3.0}, softmax([logit / 3 for logit in LOGITS])),
    "top-k": ({"temperature": 1.0, "top_k": 3}, among(likeliest(P)[:3], P)),
    "top-p": ({"temperature": 1.0, "top_p": 0.7}, among(nucleus(P, 0.7), P)),
    "min-p": ({"temperature": 1.0, "min_p": 0.3}, among([t for t in range(10) if P[t] >= 0.3 * max(P)], P)),
    "top-k, then top-p": ({"temperature": 1.0, "top_k": 4, "top_p": 0.6}, among(nucleus(TOP_4, 0.6), P)),
    "temperature, then top-p": ({"temperature": 0.6, "top_p": 0.6}, among(nucleus(SHARP, 0.6), SHARP)),
    "typical-p": ({"temperature": 1.0, "typical_p": 0.5}, among(typical(P, 0.5), P)),
    "top-k, then typical-p": ({"temperature": 1.0, "top_k": 4, "typical_p": 0.4}, among(typical(TOP_4, 0.4), P)),
}


def draws(config, logits=LOGITS, rows=2000, first=0):
    """The tokens chosen at `rows` positions."""
    logits_BV = torch.tensor(logits).expand(rows, -1)
    return choose(logits_BV, config, numbers(config, range(first, first + rows))).tolist()


def numbers(config, positions):
    return [uniform(config.seed, position) for position in positions]


@pytest.mark.parametrize(("setting", "wanted"), CASES.values(), ids=list(CASES))
def test_tokens_come_as_often_as_the_closed_form_says(setting, wanted):
    counts = Counter()
    for seed in range(5):
        counts.update(draws(SamplingConfig(seed=seed, **setting)))
    total = sum(counts.values())
    possible = [token for token, probability in enumerate(wanted) if probability > 0]
    assert set(counts) <= set(possible)
    distance = sum((counts[t] - total * wanted[t]) ** 2 / (total * wanted[t]) for t in possible)
    assert distance < CHI_SQUARE[len(possible) - 1]


def test_the_closed_forms_are_told_apart():
    """The samples are many enough to tell each of the cases from every other."""
    shapes = list(CASES.values())
    for index, (setting, _) in enumerate(shapes):
        counts = Counter(draws(SamplingConfig(seed=1, **setting), rows=5000))
        for other, (_, wanted) in enumerate(shapes):
            surprise = sum((counts[t] - 5000 * wanted[t]) ** 2 / (5000 * wanted[t] + 1e-9) for t in range(10))
            assert (surprise < 45) == (other == index or wanted == shapes[index][1]), (index, other)


def test_greedy_takes_the_likeliest():
    logits_BV = torch.randn(50, 30, generator=torch.Generator().manual_seed(0))
    chosen = choose(logits_BV, SamplingConfig(temperature=0), [0.5] * 50)
    assert chosen.tolist() == [max(range(30), key=lambda token: row[token]) for row in logits_BV.tolist()]


@pytest.mark.parametrize(
    "setting",
    [
        {"top_k": 1},
        {"top_p": 1e-9},
        {"min_p": 1.0},
        {"temperature": 1e-6},
        {"temperature": 1e-40},
        {"temperature": 5e-324},
    ],
    ids=str,
)
def test_the_narrowest_choice_is_greedy(setting):
    logits_BV = torch.randn(200, 30, generator=torch.Generator().manual_seed(0)) * 5
    chosen = choose(logits_BV, SamplingConfig(**setting), numbers(SamplingConfig(), range(200)))
    assert torch.equal(chosen, logits_BV.argmax(-1))


def test_equally_likely_tokens_do_not_stretch_top_k():
    tied = [1.0, 3.0, 3.0, 3.0, 3.0, 0.0]
    assert len(set(draws(SamplingConfig(top_k=2), tied))) == 2
    assert set(draws(SamplingConfig(top_k=5), tied)) == {0, 1, 2, 3, 4}


def test_top_k_beyond_the_vocabulary_keeps_all():
    assert draws(SamplingConfig(top_k=1000)) == draws(SamplingConfig())


@settings(max_examples=60)
@given(
    st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=12),
    st.sampled_from([0.05, 1.0, 20.0]),
    st.integers(1, 5),
    st.floats(0.01, 1.0),
    st.floats(0.0, 1.0),
)
def test_what_is_left_out_is_never_chosen(logits, temperature, top_k, top_p, min_p):
    config = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    highest = max(logits)
    probabilities = softmax([(logit - highest) / temperature for logit in logits])
    for token in set(draws(config, logits, rows=40)):
        likelier = [p for other, p in enumerate(probabilities) if p > probabilities[token] * (1 + 1e-9)]
        assert len(likelier) < top_k
        assert probabilities[token] >= min_p * max(probabilities) * (1 - 1e-9)
        mass = sum(sorted(probabilities, reverse=True)[:top_k])
        assert sum(likelier) / mass < top_p + 1e-9


def test_a_token_of_no_probability_is_not_chosen_at_either_end():
    probabilities_BV = torch.tensor([[0.0, 0.3, 0.0, 0.7, 0.0]], dtype=torch.float64).expand(3, -1)
    numbers = torch.tensor([0.0, 0.3, 1 - 2**-53], dtype=torch.float64)
    assert invert(probabilities_BV, numbers).tolist() == [1, 3, 3]


@settings(max_examples=50)
@given(st.integers(0, 2**32), st.integers(1, 2000))
def test_the_last_number_below_one_finds_a_possible_token(seed, size):
    weights = torch.rand(1, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weights[0, size // 2 :] *= 0 if size > 1 else 1
    token = invert(weights / weights.sum(), torch.tensor([1 - 2**-53], dtype=torch.float64))
    assert weights[0, token] > 0


def test_numbers_are_a_function_of_seed_and_position():
    places = [(seed, position) for seed in (0, 1, 2**63 - 1) for position in (0, 1, 5, 100_000)]
    forth = {place: uniform(*place) for place in places}
    back = {place: uniform(*place) for place in reversed(places)}
    assert forth == back
    assert len(set(forth.values())) == len(places)


def test_numbers_are_uniform_and_neighbours_unrelated():
    numbers = np.array([[uniform(seed, position) for position in range(200)] for seed in range(50)])
    assert numbers.min() >= 0 and numbers.max() < 1
    counts = np.histogram(numbers, bins=10, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < CHI_SQUARE[9]
    for first, second in ((numbers[:, :-1], numbers[:, 1:]), (numbers[:-1], numbers[1:])):
        assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.05


def test_a_forbidden_token_is_not_chosen():
    """A constraint writes −∞ into the logits."""
    assert set(draws(SamplingConfig(temperature=5.0), [1.0, -math.inf, 0.0], rows=200)) == {0, 2}


def test_a_row_is_chosen_as_if_it_were_alone():
    logits_BV = torch.randn(6, 40, generator=torch.Generator().manual_seed(3))
    config = SamplingConfig(top_p=0.9, top_k=20, min_p=0.01, seed=11)
    positions = [4, 9, 4, 0, 77, 5]
    together = choose(logits_BV, config, numbers(config, positions))
    alone = [choose(logits_BV[[row]], config, numbers(config, [positions[row]])).item() for row in range(6)]
    assert together.tolist() == alone


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ({"temperature": float("nan")}, "temperature must be at least 0, got nan"),
        ({"temperature": float("inf")}, "temperature must be at least 0, got inf"),
        ({"temperature": -0.1}, "temperature must be at least 0, got -0.1"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_k": -3}, "top_k must be at least 1, got -3"),
        ({"top_p": 0.0}, "top_p must be > 0"),
        ({"top_p": 1.1}, "top_p must be between 0 and 1"),
        ({"top_p": float("nan")}, "top_p must be between 0 and 1, got nan"),
        ({"min_p": -0.1}, "min_p must be between 0 and 1"),
        ({"min_p": float("nan")}, "min_p must be between 0 and 1, got nan"),
        ({"typical_p": 0.0}, "typical_p must be > 0"),
        ({"typical_p": 2}, "typical_p must be between 0 and 1"),
        ({"presence_penalty": 3}, "presence_penalty must be between -2 and 2"),
        ({"frequency_penalty": float("nan")}, "frequency_penalty must be between -2 and 2, got nan"),
        ({"no_repeat_ngram": 0}, "no_repeat_ngram must be at least 1"),
        ({"logit_bias": {"x": 1.0}}, "logit_bias has 'x'"),
        ({"logit_bias": {"-1": 1.0}}, "logit_bias has '-1'"),
        ({"logit_bias": {"3": float("nan")}}, "logit_bias has '3': nan"),
        ({"logit_bias": {"3": 101}}, "logit_bias has '3': 101"),
        ({"logprobs": 21}, "logprobs must be between 0 and 20"),
        ({"timeout": 0}, "timeout must be > 0"),
        ({"stop": ["x" * 1_000_000]}, "stop holds at most 256 texts of at most 1,000 characters"),
        ({"stop": ["x"] * 257}, "stop holds at most 256 texts"),
        ({"repetition_penalty": 0}, "repetition_penalty must be > 0"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty must be > 0, got inf"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"max_tokens": 4, "min_tokens": 5}, "min_tokens must be between 0 and 4, got 5"),
        ({"seed": -1}, "seed must be between 0 and"),
        ({"seed": 2**200}, "seed must be between 0 and"),
        ({"stop": ["x", ""]}, "stop holds an empty text"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_used_is_refused(setting, problem):
    with pytest.raises(ConfigError, match=problem):
        SamplingConfig(**setting)


def test_chat_is_told_that_it_tells_no_probabilities():
    with pytest.raises(ConfigError, match="chat tells no probabilities"):
        ChatConfig(model=Path("model"), logprobs=3)


def test_the_defaults_are_those_promised():
    config = SamplingConfig()
    assert (config.max_tokens, config.temperature, config.top_k, config.top_p) == (100, 0.8, None, None)


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    vocabulary=st.sampled_from([1, 2, 10, 255, 256, 257, 1000]),
    spread=st.sampled_from([0.01, 0.1, 1.0, 5.0, 60.0]),
    forbidden=st.floats(0, 1),
    temperature=st.sampled_from([1e-30, 0.01, 0.5, 1.0, 3.0]),
    top_p=st.sampled_from([None, 1e-9, 0.123, 0.876, 1 - 1e-16, 1]),
    min_p=st.sampled_from([None, 0, 0.05, 1]),
    typical_p=st.sampled_from([None, 0.321, 0.954, 1]),
    numbers=st.lists(st.integers(0, 2**31).map(lambda number: (number + 0.3) / (2**31 + 11)), min_size=1, max_size=4),
)
def test_the_kernel_chooses_what_the_tensors_choose(
    seed, vocabulary, spread, forbidden, temperature, top_p, min_p, typical_p, numbers
):
    """Also of a part of each row, which is how the ids that mean nothing are left out. Numbers and masses are such that
    no token lies on a border, where rounding would decide."""
    generator = torch.Generator().manual_seed(seed)
    logits_BV = (torch.randn(len(numbers), vocabulary + 3, generator=generator) * spread)[:, :vocabulary]
    left_out_BV = torch.rand(logits_BV.shape, generator=generator) < forbidden
    left_out_BV[:, seed % vocabulary] = False
    logits_BV = logits_BV.masked_fill(left_out_BV, -torch.inf)
    config = SamplingConfig(temperature=temperature, top_p=top_p, min_p=min_p, typical_p=typical_p)
    wanted = choose(logits_BV.double(), config, numbers)  # which no kernel takes
    assert choose(logits_BV, config, numbers).tolist() == wanted.tolist()
    assert torch.equal(choose(logits_BV, SamplingConfig(temperature=0), numbers), logits_BV.argmax(-1))


@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)  # by the kernel, and not
@pytest.mark.parametrize("vocabulary", [1, 16, 37])
def test_nothing_is_chosen_where_no_token_is_possible_or_one_is_no_number(vocabulary, dtype, temperature):
    rows = 3 * vocabulary
    logits_BV = torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(0)).to(dtype)
    broken = {row: (math.nan, math.inf)[row % 2] for row in range(0, rows, 3)}
    for row, what in broken.items():
        logits_BV[row, row // 3] = what
    logits_BV[1] = -math.inf
    chosen = choose(logits_BV, SamplingConfig(temperature=temperature), [0.5] * rows).tolist()
    assert [row for row, token in enumerate(chosen) if token < 0] == sorted([*broken, 1])
    assert all(0 <= token < vocabulary for row, token in enumerate(chosen) if row != 1 and row not in broken)


def test_of_equally_likely_tokens_the_first_are_the_k_likeliest():
    logits_BV = torch.tensor([[1.0, 2.0, 1.0, 1.0, 2.0, 0.0]])
    for k, kept in ((1, {1}), (2, {1, 4}), (3, {0, 1, 4}), (4, {0, 1, 2, 4}), (9, set(range(6)))):
        config = SamplingConfig(top_k=k)
        assert {choose(logits_BV, config, [number / 500]).item() for number in range(500)} == kept
