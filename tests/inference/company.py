"""Requests that are served beside one another, in an order and a company that chance decides."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from seedbed.inference.engine import Engine
from seedbed.inference.generation import Completion


def serve_in_company(
    engine: Engine, requests: Sequence[Any], wanted: Sequence[Completion], chance: random.Random
) -> None:
    """Some of the requests (prompt, sampling and perhaps an adapter), the same one twice, too, come and go, and some
    are cancelled. Each answer must be the one that is wanted of it, bit for bit, and all blocks must come back."""
    coming = chance.choices(range(len(requests)), k=chance.randint(2, 8))
    drawn, serving = list(coming), []
    while coming or any(generation.reason is None for _, generation in serving):
        if coming and chance.random() < 0.4:
            prompt, sampling, *adapter = requests[coming[-1]]
            ids = engine.encode(prompt)
            serving.append((coming.pop(), engine.submit(ids, sampling, adapter=adapter[0] if adapter else None)))
        if serving and chance.random() < 0.03:
            engine.cancel(chance.choice(serving)[1])
        engine.step()
    for number, generation in serving:
        found = generation.completion
        if found.reason == "cancelled":
            assert found.tokens == wanted[number].tokens[: len(found.tokens)], drawn
        else:
            assert found == wanted[number], (number, drawn)
    blocks = engine.scheduler.blocks
    assert blocks.available == blocks.count and not any(blocks.holders)
