"""Requests with adapters and without stand beside one another, and none feels another."""

from __future__ import annotations

import asyncio
import random

import pytest
import torch

import seedbed
from seedbed.errors import DataError
from seedbed.inference.async_engine import AsyncEngine
from seedbed.inference.config import EngineConfig, SamplingConfig
from seedbed.inference.engine import Engine
from seedbed.model.adapters.adapters import Adapters
from seedbed.model.adapters.folder import read_adapter
from seedbed.model.linears.layers import quantise
from seedbed.model.packed.pack import pack
from seedbed.tokenizers import bytes as byte_tokenizer
from tests.inference.company import serve_in_company
from tests.random_adapters import random_adapter
from tests.random_models import random_model, saved

TOKENIZER = byte_tokenizer.build()
NAMES = ["formal", "terse", "rhyming"]
GREEDY = SamplingConfig(max_tokens=12, temperature=0, logprobs=1)
BEGINNING = "It was the best of times, it was the worst of times, " * 2
WAYS = [
    {"temperature": 0, "logprobs": 1},
    {"temperature": 1.0},
    {"temperature": 0.8, "top_k": 30, "top_p": 0.9, "logprobs": 2},
]
REQUESTS = [
    (beginning + "then", SamplingConfig(max_tokens=3 + 5 * number, seed=number, **WAYS[number]), adapter)
    for beginning in ["", BEGINNING]
    for number in range(len(WAYS))
    for adapter in [None, *NAMES]
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Of a base, under "base", and of three adapters: of all layers, of queries, of feed-forwards."""
    path = tmp_path_factory.mktemp("adapters")
    model = random_model(3, tokenizer=TOKENIZER, width=32, heads=2, kv_heads=1, head_width=16, context=256)
    made = {"base": saved(path / "base", model, TOKENIZER)}
    for seed, (name, layers) in enumerate(zip(NAMES, ["", "query", "feedforward"], strict=True)):
        made[name] = random_adapter(path / name, model.config, seed, layers, r=3 + 8 * seed)
    return made


@pytest.fixture(scope="module", params=["stored", "int8"])
def engine(request, folders):
    return Engine.load(folders["base"], weights=request.param, adapters={name: folders[name] for name in NAMES})


def answer(engine, request):
    prompt, sampling, adapter = request
    return engine.complete([engine.encode(prompt)], sampling, adapter=adapter)[0]


@pytest.fixture(scope="module")
def wanted(engine):
    """Each request alone."""
    return [answer(engine, request) for request in REQUESTS]


def test_each_adapter_answers_in_its_own_way(engine):
    texts = {
        adapter: engine.generate("Once", temperature=0, max_tokens=12, adapter=adapter) for adapter in [None, *NAMES]
    }
    assert len(set(texts.values())) == 4


@pytest.mark.parametrize("fifty", range(4))
def test_in_random_company_each_answer_has_the_same_bits(fifty, engine, wanted):
    assert engine.inexact is None
    for seed in range(50 * fifty, 50 * fifty + 50):
        chance = random.Random(seed)
        config = EngineConfig(
            rows=chance.choice([2, 3, 8]),
            step_tokens=chance.choice([7, 40, 512]),
            cache_tokens=chance.choice([256, 320, 1024]),
        )
        serving_engine = Engine(engine.model, TOKENIZER, config, adapters=engine.adapters)
        serve_in_company(serving_engine, REQUESTS, wanted, chance)


def test_guesses_wear_what_their_request_wears(engine, wanted):
    """Rows of a step are then more than its tokens that are known."""
    config = EngineConfig(step_tokens=40)
    guessing = Engine(engine.model, TOKENIZER, config, adapters=engine.adapters, draft=engine.model)
    serving = [
        guessing.submit(engine.encode(prompt), sampling, adapter=adapter) for prompt, sampling, adapter in REQUESTS
    ]
    while any(generation.reason is None for generation in serving):
        guessing.step()
    assert [generation.completion for generation in serving] == wanted
    assert sum(generation.guessed for generation in serving) > 20


def test_without_one_an_answer_is_that_of_an_engine_that_has_none(engine, folders):
    weights = "int8" if type(engine.model.head).__name__ == "PackedInt8Linear" else "stored"
    bare = Engine.load(folders["base"], weights=weights)
    ids = engine.encode(BEGINNING)
    assert engine.complete([ids], GREEDY) == bare.complete([ids], GREEDY)


def test_a_beginning_that_was_kept_serves_its_own_adapter_alone(engine, wanted):
    engine = Engine(engine.model, TOKENIZER, adapters=engine.adapters)
    ids = engine.encode(BEGINNING + "then")
    for adapter in ["formal", "terse", None, "formal", "terse", None]:
        number = next(
            number for number, each in enumerate(REQUESTS) if each[0] == BEGINNING + "then" and each[2] == adapter
        )
        kept = len(engine.scheduler.blocks._idle)
        assert engine.complete([ids], REQUESTS[number][1], adapter=adapter)[0] == wanted[number]
    assert kept == len(engine.scheduler.blocks._idle)  # the second time each found its own


def test_an_unknown_adapter_is_refused_and_disturbs_nobody(engine, wanted):
    engine = Engine(engine.model, TOKENIZER, adapters=engine.adapters)
    serving = [engine.submit(engine.encode(prompt), sampling, adapter=name) for prompt, sampling, name in REQUESTS[:4]]
    engine.step()
    for ask in (engine.submit, lambda *wants, adapter: engine.complete([wants[0]], wants[1], adapter=adapter)):
        with pytest.raises(DataError, match="there is no adapter 'casual': there are formal, terse, rhyming"):
            ask(engine.encode("Once"), GREEDY, adapter="casual")
    while any(generation.reason is None for generation in serving):
        engine.step()
    assert [generation.completion for generation in serving] == wanted[:4]


def test_coroutines_wear_them_too(engine, wanted):
    async def everyone():
        served = AsyncEngine(Engine(engine.model, TOKENIZER, adapters=engine.adapters))
        try:
            asked = [served.complete(engine.encode(prompt), how, adapter=name) for prompt, how, name in REQUESTS[:8]]
            found = await asyncio.gather(*asked)
            with pytest.raises(DataError, match="there is no adapter 'casual'"):
                await served.complete(engine.encode("Once"), GREEDY, adapter="casual")
            return found, await served.complete(engine.encode(REQUESTS[1][0]), REQUESTS[1][1], adapter=REQUESTS[1][2])
        finally:
            served.close()

    found, afterwards = asyncio.run(everyone())
    assert found == wanted[:8] and afterwards == wanted[1]


def test_a_conversation_can_wear_one(engine):
    said = [{"role": "user", "content": "Hi"}]
    plain, formal = (engine.chat(said, temperature=0, max_tokens=12, adapter=name) for name in (None, "formal"))
    assert plain != formal


def test_what_texts_are_turned_into_is_the_base_alone(engine):
    before = engine.embed(["Once"])[0]
    engine.generate("Once", max_tokens=3, adapter="formal")
    assert torch.equal(engine.embed(["Once"])[0], before)


def test_a_model_that_is_not_packed_serves_them_by_pytorch(folders):
    adapters = {name: folders[name] for name in NAMES}
    engine = seedbed.load(folders["base"], device="cpu", adapters=adapters)
    plain = seedbed.load(folders["base"], device="cpu", dtype="float64", adapters=adapters)
    for name in [None, *NAMES]:
        assert plain.generate("Once", GREEDY, adapter=name) == engine.generate("Once", GREEDY, adapter=name)


def test_kernels_and_packing_are_all_it_takes():
    """An engine over a model that stays as it is, with its layers adapted, says why it promises less."""
    model = random_model(3, tokenizer=TOKENIZER, width=32, heads=2, kv_heads=1, head_width=16)
    assert "not packed" in Engine(model, TOKENIZER, adapters=Adapters(model, {})).inexact
    packed = pack(quantise(model))
    assert Engine(packed, TOKENIZER, adapters=Adapters(packed, {})).inexact is None


def test_a_folder_that_is_none_is_refused_as_the_model_is_opened(folders, tmp_path):
    with pytest.raises(DataError, match="is no adapter"):
        Engine.load(folders["base"], adapters={"formal": tmp_path})
    other = random_model(width=48)
    with pytest.raises(DataError, match="trained over another model"):
        read_adapter(folders["formal"], other.config)
