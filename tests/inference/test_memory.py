"""Requests come and go in every way there is, and nothing of them stays: no block, no object, no memory."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from collections import deque
from threading import Event

import psutil
import pytest

from seedbed.errors import BusyError, DataError
from seedbed.inference.async_engine import AsyncEngine, Listener
from seedbed.inference.config import EngineConfig, SamplingConfig
from seedbed.inference.engine import Engine
from seedbed.inference.generation import Generation
from seedbed.model.packed.pack import pack
from seedbed.tokenizers import characters
from tests.random_models import random_model

LETTERS = "abcdefghijklmnopqrstuvwxyz"
BEGINNING = "itwasthebestoftimesitwastheworstoftimesitwastheageofwisdomitwast"
"""A block, and a little of the next with <s>."""
WAYS = [
    {},
    {"temperature": 0},
    {"stop": ["a", "th", "x"]},
    {"logprobs": 2},
    {"timeout": 1e-6},
    {"timeout": 0.005},
    {"frequency_penalty": 0.5, "no_repeat_ngram": 3},
    {"no_repeat_ngram": 1, "max_tokens": 90},
]
LARGEST_GROWTH = 16_000_000
"""Bytes of the process, between two counts. After other tests the allocator takes some megabytes more or less; two
kilobytes that stayed of each request would be 20."""


@pytest.fixture
def engines():
    """Two, so small that requests wait for rows and for blocks, and make room for one another."""
    tokenizer = characters.train([LETTERS])
    sizes = {"width": 16, "layers": 1, "heads": 1, "kv_heads": 1, "head_width": 16, "context": 192}
    model = pack(random_model(3, tokenizer=tokenizer, **sizes))
    return [Engine(model, tokenizer, EngineConfig(rows=6, step_tokens=96, cache_tokens=6 * 64)) for _ in range(2)]


def request(engine, chance):
    """Ids, and what is asked of them."""
    text = chance.choice(["", BEGINNING[:50], BEGINNING]) + "".join(chance.choices(LETTERS, k=chance.randint(1, 9)))
    settings = {"max_tokens": chance.choice([1, 2, 4, 8, 20]), "seed": chance.randrange(2**40), **chance.choice(WAYS)}
    # Where none may come twice, an end token that came already leaves it going on until nothing is left: an error.
    return [*engine.tokenizer.end_ids, *engine.encode(text)], SamplingConfig(**settings)


def serve(engine, chance, count):
    """So many requests, stepped by hand."""
    under_way = []
    while count > 0 or under_way:
        ids, sampling = request(engine, chance)
        kind = chance.choices(["submit", "complete", "stream", "refused", "search", "none"], [60, 4, 4, 4, 2, 40])[0]
        if count <= 0 or kind == "none":
            pass
        elif kind == "submit":
            count -= 1
            under_way.append(engine.submit(ids, sampling, salt=chance.choice([b"", b"tenant"])))
        elif kind == "refused":
            count -= 1
            with pytest.raises(DataError):
                engine.submit([*ids, 9999], sampling)
        else:
            count -= 3
            with contextlib.suppress(DataError, BusyError):
                if kind == "complete":
                    engine.complete([ids], sampling, n=3)
                elif kind == "search":
                    engine.search(ids, beams=2, max_tokens=5)
                else:
                    stream = engine.stream([ids, ids[:2], ids[:1]], sampling)
                    for _ in range(chance.randrange(4)):
                        next(stream, None)
                    del stream  # abandoned, without a word
        if under_way and chance.random() < 0.1:
            engine.cancel(chance.choice(under_way))
        engine.step()
        under_way = [generation for generation in under_way if generation.reason is None]


async def ask(shared, chance, count):
    """So many requests of coroutines, some of which are cancelled, or stop listening."""

    async def listen(ids, sampling, most):
        stream = shared.stream(ids, sampling)
        with contextlib.suppress(DataError):
            async for _ in stream:
                if (most := most - 1) < 0:
                    break
        await stream.aclose()

    for _ in range(0, count, 20):
        wanted = [(*request(shared.engine, chance), chance.choice([1, 1000])) for _ in range(20)]
        tasks = [asyncio.create_task(listen(*each)) for each in wanted]
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        for task in chance.sample(tasks, 4):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def what_is_there():
    """Objects, and what they hold together, once what nobody wants is gone; bytes of the process."""
    gc.collect()
    size = psutil.Process().memory_info().rss
    everything = gc.get_objects()
    held = sum(len(each) for each in everything if type(each) in (list, dict, set, deque))
    return len(everything), held, size


def test_after_10_000_requests_with_cancels_at_random_all_is_as_before(engines, monkeypatch):
    chance, seen = random.Random(0), set()
    stepped, shared = engines[0], AsyncEngine(engines[1])
    scheduler, let_go = stepped.scheduler, stepped.scheduler.let_go

    def watched(generation):
        if type(generation.sampling) is SamplingConfig and generation not in scheduler.waiting:
            seen.add(generation.reason or "makes room")
        let_go(generation)

    def serve_all(rounds):
        for _ in range(rounds):
            serve(stepped, chance, 400)
            asyncio.run(ask(shared, chance, 100))
        done = Event()
        shared._wishes.put(done.set)  # after those of the last who cancelled
        done.wait()

    monkeypatch.setattr(scheduler, "let_go", watched)
    try:
        serve_all(2)  # what is made once has been made
        before = what_is_there()
        serve_all(20)
        after = what_is_there()
        for engine in engines:
            blocks = engine.scheduler.blocks
            assert blocks.available == blocks.count and not any(blocks.holders)
            assert not engine.scheduler.running and not engine.scheduler.waiting
        assert not shared.listeners and not shared._by_generation and shared._wishes.empty()
        assert not [each for each in gc.get_objects() if type(each) in (Generation, Listener)]
    finally:
        shared.close()
    assert seen == {"end", "stop", "length", "timeout", "cancelled", "error", "makes room"}
    objects, held, size = (now - then for now, then in zip(after, before, strict=True))
    assert objects < 100 and held < 300 and size < LARGEST_GROWTH, (objects, held, size)
