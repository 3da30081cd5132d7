"""Contrastive search against plain Python. What it shares with beam search is tested there."""

from __future__ import annotations

import itertools

import pytest

from seedbed.inference.config import SamplingConfig, SearchConfig
from seedbed.inference.engine import Engine
from seedbed.tokenizers import characters
from tests.inference.plain_search import contrastive_search
from tests.random_models import random_model

END = 16


@pytest.fixture(scope="module")
def engine():
    tokenizer = characters.train(["abcdefghij"])
    tokenizer.end_ids = (END,)
    return Engine(random_model(9, tokenizer=tokenizer, context=256), tokenizer)


def prompt_of(length):
    return [7 + (place * place + place // 7) % 10 for place in range(length)]


@pytest.mark.parametrize(("alpha", "k"), [(0.6, 4), (0.2, 8), (1.0, 3), (0.9, 17)])
@pytest.mark.parametrize("length", [1, 50, 64, 127])
def test_it_finds_what_plain_python_finds(engine, alpha, k, length):
    ids = prompt_of(length)
    wanted = contrastive_search(engine.model, ids, alpha=alpha, k=k, longest=40, end=END)
    for _ in range(2):  # the second time the beginning is in the cache
        found = engine.search(ids, penalty_alpha=alpha, top_k=k, max_tokens=40)[0]
        assert found.tokens == wanted
    blocks = engine.scheduler.blocks
    assert blocks.available == blocks.count and not any(blocks.holders)


SETTINGS = [{}, {"stop": ["cc", "gig"]}, {"frequency_penalty": 0.7}, {"no_repeat_ngram": 3}]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_it_is_greedy_where_likeness_does_not_count_or_there_is_no_choice(engine, setting):
    for length in (1, 64, 70):
        ids = prompt_of(length)
        greedy = engine.complete([ids], SamplingConfig(max_tokens=60, temperature=0, **setting))
        assert engine.search(ids, SearchConfig(penalty_alpha=0.0, top_k=5, max_tokens=60, **setting)) == greedy
        assert engine.search(ids, SearchConfig(penalty_alpha=0.9, top_k=1, max_tokens=60, **setting)) == greedy


def test_it_repeats_less(engine):
    ids = prompt_of(9)

    def repeated(tokens):
        pairs = list(itertools.pairwise(tokens))
        return 1 - len(set(pairs)) / len(pairs)

    forever = {"max_tokens": 150, "logit_bias": {str(END): -100.0}}
    greedy = engine.complete([ids], SamplingConfig(temperature=0, **forever))[0]
    contrasted = engine.search(ids, penalty_alpha=0.7, top_k=6, **forever)[0]
    assert repeated(contrasted.tokens) < repeated(greedy.tokens) - 0.1
