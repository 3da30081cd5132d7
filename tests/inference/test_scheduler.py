"""The scheduler: everybody is answered, the budget is kept, and nobody who decodes waits for a prompt."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedbed.inference.blocks import Blocks
from seedbed.inference.generation import Generation
from seedbed.inference.scheduler import Scheduler
from seedbed.model.cache import BLOCK


def generation(length, more=1, first=0):
    """A prompt of so many tokens, the first one `first`, that ends after `more`."""
    tokens = [first, *range(1, length)]
    return Generation(tokens=tokens, prompt=length, limit=length + more, sampling=None, text=SimpleNamespace())


def run(scheduler, *, steps=10_000):
    """Until nobody is left; what each step computed."""
    done = []
    for _ in range(steps):
        shares = scheduler.schedule()
        if not shares:
            break
        done.append([(share.generation, share.count, share.completes) for share in shares])
        for share in shares:
            completes = share.completes
            scheduler.computed(share.generation, share.count)
            if completes:
                share.generation.tokens.append(7)
                if len(share.generation.tokens) >= share.generation.limit:
                    scheduler.remove(share.generation)
    assert not scheduler.waiting and not scheduler.running
    return done


REQUESTS = st.lists(st.tuples(st.integers(1, 3 * BLOCK), st.integers(1, 2 * BLOCK), st.integers(0, 2)), max_size=8)


@given(REQUESTS, st.integers(5, 20), st.integers(1, 5), st.integers(1, 200))
def test_everybody_is_answered_whole_and_every_block_comes_back(requests, count, rows, step_tokens):
    blocks = Blocks(count)
    scheduler = Scheduler(blocks, rows=rows, step_tokens=step_tokens)
    generations = [generation(*request) for request in requests]
    for each in generations:
        scheduler.add(each)
    for step in run(scheduler):
        assert len(step) <= rows
        decoding = sum(share == 1 for _, share, _ in step)
        assert sum(share for _, share, _ in step) <= max(step_tokens, decoding)
    assert all(len(each.tokens) == each.limit for each in generations)
    assert blocks.available == count and not any(blocks.holders)


def test_those_who_decode_get_their_token_before_a_long_prompt_goes_on():
    scheduler = Scheduler(Blocks(40), rows=4, step_tokens=16)
    scheduler.add(short := generation(3, more=5))
    scheduler.add(long := generation(200))
    steps = [[(each, count) for each, count, _ in step] for step in run(scheduler)]
    assert steps[0] == [(short, 3), (long, 13)]
    assert all(step == [(short, 1), (long, 15)] for step in steps[1:5])


def test_prompts_come_in_the_order_in_which_they_were_given():
    scheduler = Scheduler(Blocks(40), rows=2, step_tokens=1000)
    given_ = [generation(5, first=number) for number in range(5)]
    for each in given_:
        scheduler.add(each)
    assert [each for step in run(scheduler) for each, _, _ in step] == given_


def test_a_beginning_that_was_computed_is_not_computed_again():
    scheduler = Scheduler(Blocks(40), rows=2, step_tokens=1000)
    scheduler.add(generation(3 * BLOCK))
    run(scheduler)
    for length, left in ((3 * BLOCK, BLOCK), (3 * BLOCK + 1, 1), (BLOCK, BLOCK), (BLOCK - 1, BLOCK - 1)):
        scheduler.add(again := generation(length))
        assert run(scheduler)[0] == [(again, left, True)]
    scheduler.add(other := generation(3 * BLOCK, first=9))
    assert run(scheduler)[0] == [(other, 3 * BLOCK, True)]


def test_the_youngest_makes_room_and_is_computed_again():
    scheduler = Scheduler(Blocks(4), rows=2, step_tokens=1000)
    scheduler.add(old := generation(2 * BLOCK - 1, more=BLOCK, first=1))
    scheduler.add(young := generation(BLOCK, more=BLOCK, first=2))
    steps = run(scheduler)
    assert len(old.tokens) == old.limit and len(young.tokens) == young.limit
    again = [count for step in steps for each, count, _ in step if each is young and count > 1]
    assert len(again) == 2


@pytest.mark.parametrize("begun", [False, True])
def test_who_is_wanted_no_longer_leaves_nothing_behind(begun):
    scheduler = Scheduler(Blocks(4), rows=1, step_tokens=1000)
    for each in (one := generation(5, more=9), generation(6, more=9)):
        scheduler.add(each)
    if begun:
        for share in scheduler.schedule():
            scheduler.computed(share.generation, share.count)
    scheduler.remove(one)
    scheduler.remove(one)
    run_to_the_end = run(scheduler)
    assert all(each is not one for step in run_to_the_end for each, _, _ in step)
