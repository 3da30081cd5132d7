"""Any number of prompts, answered by one engine."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

from seedbed.inference.config import SamplingConfig
from seedbed.inference.engine import Engine
from seedbed.inference.generation import Completion, Generation


def answers(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingConfig,
    *,
    n: int = 1,
    adapter: str | None = None,
) -> Iterator[Completion]:
    """The completions of each prompt, given as token ids, in order, `n` of them for each, as they are done. The engine
    always has some that wait and never all of them. Raises DataError for what it refuses."""
    coming = ((ids, sample) for ids in prompts for sample in range(n))
    asked: deque[Generation] = deque()
    while True:
        under_way = sum(generation.reason is None for generation in asked)
        for ids, sample in islice(coming, max(0, 2 * engine.config.rows - under_way)):
            asked.append(engine.submit(ids, sampling, sample=sample, adapter=adapter))
        if not asked:
            return
        engine.step()
        while asked and asked[0].reason is not None:
            generation = asked.popleft()
            if generation.error is not None:
                raise generation.error
            yield generation.completion
