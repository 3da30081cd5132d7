"""Many coroutines and one engine."""

from __future__ import annotations

import asyncio
import weakref
from threading import Event, Thread

import pytest

from seedbed.errors import BusyError, ConfigError, DataError
from seedbed.inference.async_engine import AsyncEngine
from seedbed.inference.config import SamplingConfig, SearchConfig
from seedbed.inference.engine import Engine
from seedbed.model.packed.pack import pack
from seedbed.tokenizers import bytes as byte_tokenizer
from tests.random_models import random_model

TOKENIZER = byte_tokenizer.build()
PROMPTS = [TOKENIZER.encode(text) for text in ("Once", "A longer opening", "x", "木 and 🌱", "Once more")]
SAMPLINGS = [SamplingConfig(max_tokens=10 + 5 * number, seed=number) for number in range(len(PROMPTS))]


@pytest.fixture(scope="module")
def model():
    return pack(random_model(3, tokenizer=TOKENIZER, head_width=16, context=128))


@pytest.fixture(scope="module")
def wanted(model):
    engine = Engine(model, TOKENIZER)
    return [engine.complete([ids], sampling)[0] for ids, sampling in zip(PROMPTS, SAMPLINGS, strict=True)]


@pytest.fixture
def shared(model):
    engine = AsyncEngine(Engine(model, TOKENIZER))
    yield engine
    engine.close()


def all_are_gone(shared: AsyncEngine) -> None:
    shared.close()
    blocks = shared.engine.scheduler.blocks
    assert blocks.available == blocks.count and not shared.listeners and not shared._by_generation


def test_everyone_gets_what_he_would_get_alone(shared, wanted):
    async def ask():
        pairs = list(zip(PROMPTS, SAMPLINGS, strict=True)) * 4
        return await asyncio.gather(*(shared.complete(*pair) for pair in pairs))

    assert asyncio.run(ask()) == wanted * 4
    all_are_gone(shared)


def test_text_comes_in_pieces_that_make_up_the_whole(shared, wanted):
    async def listen():
        return [event async for event in shared.stream(PROMPTS[1], SAMPLINGS[1])]

    events = asyncio.run(listen())
    assert "".join(event.text for event in events) == wanted[1].text and len(events) > 3
    assert [event.completion for event in events] == [None] * (len(events) - 1) + [wanted[1]]


def test_who_is_cancelled_or_stops_listening_frees_his_place(shared, wanted):
    async def ask():
        endless = SamplingConfig(max_tokens=120, seed=9)
        tasks = [asyncio.create_task(shared.complete(ids, endless)) for ids in PROMPTS]
        stream = shared.stream(PROMPTS[0], endless)
        await anext(stream)
        for task in tasks:
            task.cancel()
        await stream.aclose()
        found = await shared.complete(PROMPTS[2], SAMPLINGS[2])
        return found, await asyncio.gather(*tasks, return_exceptions=True)

    found, others = asyncio.run(ask())
    assert found == wanted[2] and all(isinstance(other, asyncio.CancelledError) for other in others)
    all_are_gone(shared)


def test_who_still_waits_when_it_closes_is_told_and_leaves_nothing_behind(shared):
    async def ask():
        tasks = [asyncio.create_task(shared.complete(ids, SamplingConfig(max_tokens=120))) for ids in PROMPTS]
        await anext(shared.stream(PROMPTS[0], SamplingConfig(max_tokens=120)))
        shared.close()
        assert not shared.engine.scheduler.running and not any(shared.engine.scheduler.blocks.holders)
        return await asyncio.gather(*tasks, return_exceptions=True)

    assert [str(error) for error in asyncio.run(ask())] == ["the engine was closed"] * len(PROMPTS)
    all_are_gone(shared)


def test_an_idle_engine_keeps_nothing_of_the_last_request(shared, wanted, monkeypatch):
    submit, gone = shared.engine.submit, Event()

    def watched(*arguments, **settings):
        generation = submit(*arguments, **settings)
        weakref.finalize(generation, gone.set)
        return generation

    monkeypatch.setattr(shared.engine, "submit", watched)
    assert asyncio.run(shared.complete(PROMPTS[0], SAMPLINGS[0])) == wanted[0]
    assert gone.wait(10)


def test_bad_requests_are_refused_and_too_many_are(model, wanted):
    shared = AsyncEngine(Engine(model, TOKENIZER), most=2)

    async def ask():
        with pytest.raises(DataError, match="the prompt is empty"):
            await shared.complete([], SAMPLINGS[0])
        tasks = [asyncio.create_task(shared.complete(*pair)) for pair in zip(PROMPTS[:2], SAMPLINGS[:2], strict=True)]
        await asyncio.sleep(0)  # both have asked
        with pytest.raises(BusyError, match="2 requests are being answered already"):
            await shared.complete(PROMPTS[2], SAMPLINGS[2])
        return await asyncio.gather(*tasks)

    assert asyncio.run(ask()) == wanted[:2]
    all_are_gone(shared)


def test_an_engine_that_breaks_is_told_to_all(model):
    engine = Engine(model, TOKENIZER)
    shared = AsyncEngine(engine)

    def broken():
        raise ValueError("out of order")

    engine.step = broken

    async def ask():
        return await asyncio.gather(*(shared.complete(ids, SAMPLINGS[0]) for ids in PROMPTS), return_exceptions=True)

    told = asyncio.run(ask())
    assert [str(error) for error in told] == ["out of order"] * len(PROMPTS)
    with pytest.raises(RuntimeError, match="the engine has stopped"):
        asyncio.run(shared.complete(PROMPTS[0], SAMPLINGS[0]))


@pytest.mark.parametrize(
    ("ids", "sampling", "asked", "said"),
    [
        (PROMPTS[0], SearchConfig(beams=2), {}, "are for a search"),
        ([101.0], SamplingConfig(), {}, "no whole numbers"),
        (PROMPTS[0], SamplingConfig(), {"sample": 2**64}, "sample must be between"),
        (PROMPTS[0], SamplingConfig(), {"sample": "x"}, "not supported"),
    ],
)
def test_who_asks_for_nonsense_is_told_and_the_others_go_on(ids, sampling, asked, said, shared, wanted):
    async def ask():
        other = asyncio.create_task(shared.complete(PROMPTS[1], SAMPLINGS[1]))
        with pytest.raises((ConfigError, DataError, TypeError), match=said):
            await shared.complete(ids, sampling, **asked)
        return await other

    assert asyncio.run(ask()) == wanted[1]


def test_threads_that_share_an_engine_wait_for_one_another(model, wanted):
    engine, found = Engine(model, TOKENIZER), {}

    def ask(number):
        found[number] = engine.complete([PROMPTS[number]], SAMPLINGS[number])[0]

    threads = [Thread(target=ask, args=(number,)) for number in range(len(PROMPTS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(len(PROMPTS))] == wanted
