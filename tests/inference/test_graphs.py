"""Recorded passes: what is filled up changes nothing, and where nothing can be recorded the model answers as it is."""

from __future__ import annotations

import logging

import pytest
import torch

from seedbed.inference.config import EngineConfig, SamplingConfig
from seedbed.inference.engine import Engine
from seedbed.inference.graphs import DecodeGraphs, fill, padded_sizes
from seedbed.model.cache import BLOCK, PagedCache, Places
from seedbed.tokenizers import bytes as byte_tokenizer
from tests.random_models import random_model

TOKENIZER = byte_tokenizer.build()
CPU = torch.device("cpu")
TABLES, SPANS = [[4, 1], [0], [2, 3]], [(70, 1), (5, 1), (64, 1)]


def read(model):
    """A cache in which three sequences have been read up to their last token."""
    cache = PagedCache(model.config, 6, device=CPU, dtype=torch.float32)
    for table, (count, _) in zip(TABLES, SPANS, strict=True):
        tokens = torch.arange(count) % 50
        model.step(tokens, Places.of([table], [(0, count)], CPU), cache)
    return cache


def test_sizes_are_the_next_powers_of_two():
    found = [padded_sizes(*sizes) for sizes in ((1, 1), (2, 3), (3, 4), (5, 9), (32, 17))]
    assert found == [(1, 1), (2, 4), (4, 4), (8, 16), (32, 32)]


@torch.no_grad()
@pytest.mark.parametrize("by_kernel", [True, False])
def test_a_pass_that_is_filled_up_says_the_same(by_kernel):
    model = random_model(3, tokenizer=TOKENIZER, head_width=16, context=128)
    tokens_N, places = torch.tensor([7, 8, 9]), Places.of(TABLES, SPANS, CPU)
    wanted = model.step(tokens_N, places, read(model))
    cache = read(model)
    cache.by_kernel, cache.side_by_side = by_kernel and cache.by_kernel, True
    rows, width = padded_sizes(3, 2)
    padded_N = torch.full((rows,), 11)
    padded = Places.of([[5] * width] * rows, [(99, 1)] * rows, CPU)
    fill(padded_N, padded, tokens_N, places, spare=5)
    found = model.step(padded_N, padded, cache)[:3]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@torch.no_grad()
def test_where_nothing_can_be_recorded_it_is_told_once_and_the_model_answers(caplog):
    model = random_model(3, tokenizer=TOKENIZER, head_width=16, context=128)
    tokens_N, places = torch.tensor([7, 8, 9]), Places.of(TABLES, SPANS, CPU)
    graphs = DecodeGraphs(model, read(model), spare=5)
    with caplog.at_level(logging.WARNING):
        found = [graphs.step(tokens_N, places) for _ in range(2)]
    assert len(caplog.records) == 1 and "without CUDA graphs" in caplog.text
    wanted = model.step(tokens_N, places, read(model))
    assert all(torch.equal(x_ND, wanted) for x_ND in found)


def test_an_engine_plays_back_where_all_decode_and_wear_nothing():
    """On a CPU, where nothing can be recorded, what is asked of a recording is seen all the same."""
    model = random_model(3, tokenizer=TOKENIZER, head_width=16, context=128)
    engine, asked = Engine(model, TOKENIZER), []
    graphs = DecodeGraphs(model, engine.cache, spare=engine.scheduler.blocks.count)
    step = graphs.step
    graphs.step = lambda tokens_N, places: asked.append(places.is_decode) or step(tokens_N, places)
    sampling = SamplingConfig(max_tokens=5, temperature=0)
    wanted = engine.complete([b"Once", b"There was"], sampling)
    engine.graphs = graphs
    assert engine.complete([b"Once", b"There was"], sampling) == wanted
    assert len(asked) >= 4 and all(asked)


@pytest.mark.gpu
def test_on_a_gpu_recorded_passes_say_what_the_model_says():
    model = random_model(3, tokenizer=TOKENIZER, head_width=16, context=4 * BLOCK).cuda()
    sampling = SamplingConfig(max_tokens=100, temperature=0)
    with_graphs, plain = (Engine(model, TOKENIZER, EngineConfig(rows=5)) for _ in range(2))
    plain.graphs = None
    prompts = [with_graphs.encode(text) for text in ("Once", "There was", "a" * 90)]
    assert with_graphs.complete(prompts, sampling) == plain.complete(prompts, sampling)
    assert with_graphs.graphs is not None and with_graphs.graphs.recordings
