"""Whoever else is served, whenever they come and go, however small the cache is: an answer has the same bits."""

from __future__ import annotations

import random

import pytest

from seedbed.inference.config import EngineConfig, SamplingConfig
from seedbed.inference.engine import Engine
from seedbed.model.linears.layers import quantise
from seedbed.model.packed.pack import pack
from seedbed.tokenizers import bytes as byte_tokenizer
from tests.inference.company import serve_in_company
from tests.inference.schemas import SCHEMAS
from tests.random_models import random_model

TOKENIZER = byte_tokenizer.build()
BEGINNINGS = ["", "It was the best of times, it was the worst of times, " * 2, "木 and 🌱 " * 9]
WAYS = [
    {"temperature": 0},
    {"temperature": 1.0},
    {"temperature": 0.8, "top_k": 30, "top_p": 0.9},
    {"temperature": 1.3, "frequency_penalty": 0.5, "no_repeat_ngram": 2},
    {"temperature": 0, "repetition_penalty": 1.3, "logprobs": 2},
    {"temperature": 1.0, "json_schema": SCHEMAS["a person"], "frequency_penalty": 0.5},  # with jumps
    {"temperature": 1.0, "regex": "(never|ever and )+", "top_k": 3, "logprobs": 1},
]
REQUESTS = [
    (beginning + f"{number} then", SamplingConfig(max_tokens=3 + 5 * number, seed=number, **WAYS[number]))
    for beginning in BEGINNINGS
    for number in range(len(WAYS))
]


KINDS = {
    "fp32": (False, "auto", {}),
    "int8": (True, "auto", {}),
    "fp32 over keys and values in int8": (False, "int8", {}),
    "windows": (False, "auto", {"window": 70}),
    "windows and convolutions": (True, "int8", {"window": 70, "short_convolution": 4}),
    "experts": (False, "auto", {"experts": 4, "experts_active": 2, "expert_width": 16}),
}


@pytest.fixture(scope="module")
def kind(request):
    """A model whose attention and products are computed by the kernels, and what keys and values are stored in; where
    layers are int8, that is fp16."""
    is_int8, cache, more = KINDS[request.param]
    plain = random_model(3, tokenizer=TOKENIZER, width=32, heads=2, kv_heads=1, head_width=16, context=256, **more)
    return pack(quantise(plain) if is_int8 else plain), cache


@pytest.fixture(scope="module")
def wanted(kind):
    """Each request alone."""
    model, cache = kind
    engine = Engine(model, TOKENIZER, EngineConfig(cache=cache, exact=True))
    return [engine.complete([engine.encode(prompt)], sampling)[0] for prompt, sampling in REQUESTS]


@pytest.mark.parametrize(
    ("kind", "hundred"),
    [(kind, hundred) for kind in KINDS for hundred in range(10 if kind in ("fp32", "int8") else 2)],
    indirect=["kind"],
)
def test_of_a_thousand_random_schedules_each_answer_is_the_same_bits(hundred, kind, wanted):
    model, cache = kind
    for seed in range(100 * hundred, 100 * hundred + 100):
        chance = random.Random(seed)
        config = EngineConfig(
            rows=chance.choice([1, 2, 3, 8]),
            step_tokens=chance.choice([7, 40, 64, 512]),
            cache=cache,
            cache_tokens=chance.choice([256, 320, 1024]),  # the least that holds the context: many must make room
        )
        engine = Engine(model, TOKENIZER, config)
        serve_in_company(engine, REQUESTS, wanted, chance)


@pytest.mark.parametrize("kind", KINDS, indirect=True)
def test_the_answers_would_differ_by_a_millionth_of_a_weight(kind, wanted):
    """What is compared holds fp32 numbers of the model."""
    model, cache = kind
    with_numbers = [completion for completion in wanted if completion.likelihoods]
    assert len(with_numbers) == 6 and all(len(each.likelihoods) >= len(each.tokens) for each in with_numbers)
    weight = model.final_norm.weight
    before = weight.clone()
    weight *= 1 + 1e-6
    try:
        engine = Engine(model, TOKENIZER, EngineConfig(cache=cache))
        found = [engine.complete([engine.encode(prompt)], sampling)[0] for prompt, sampling in REQUESTS]
    finally:
        weight.copy_(before)
    assert found != wanted
