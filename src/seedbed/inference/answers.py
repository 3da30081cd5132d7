"""Any number of prompts, answered by one engine."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

from seedbed.errors import DataError
from seedbed.inference.config import SamplingConfig
from seedbed.inference.engine import Engine
from seedbed.inference.generation import Completion, Generation


def answers(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingConfig | Sequence[SamplingConfig],
    *,
    n: int = 1,
    adapter: str | None = None,
) -> Iterator[Completion]:
    """The completions of each prompt, given as token ids, in order, `n` of them for each, as they are done. So many are
    asked at a time as the engine has rows, and another one as soon as one of them is done. `sampling`: of all prompts,
    or of each its own. Raises DataError, with the number of the prompt, for what is refused or fails. Who stops
    listening cancels what is not done."""
    samplings = [sampling] * len(prompts) if isinstance(sampling, SamplingConfig) else sampling
    coming = ((number, sample) for number in range(len(prompts)) for sample in range(n))
    asked: deque[tuple[int, Generation]] = deque()
    try:
        while True:
            under_way = sum(generation.reason is None for _, generation in asked)
            for number, sample in islice(coming, engine.config.rows - under_way):
                with _numbered(number):
                    generation = engine.submit(prompts[number], samplings[number], sample=sample, adapter=adapter)
                    asked.append((number, generation))
            if not asked:
                return
            engine.step()
            while asked and asked[0][1].reason is not None:
                number, generation = asked.popleft()
                with _numbered(number):
                    if generation.error is not None:
                        raise generation.error
                yield generation.completion
    finally:
        for _, generation in asked:
            engine.cancel(generation)


@contextlib.contextmanager
def _numbered(number: int) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(f"prompt {number + 1:,}: {error.problem}", error.fix) from None
