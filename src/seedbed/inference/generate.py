"""`seedbed generate`: continue texts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seedbed.errors import DataError
from seedbed.inference.answers import answers
from seedbed.inference.config import GenerateConfig, SamplingConfig
from seedbed.inference.engine import Engine
from seedbed.inference.generation import Completion
from seedbed.inference.grammars import read_files
from seedbed.inference.opening import open_engine

DEMO = ("Once upon a time", "def ", "The meaning of", "import ", "In the beginning")
"""Openings for `--demo`."""


def generate(config: GenerateConfig) -> dict[str, Any]:
    """Prints continuations as they come: piece by piece for one prompt, text by text for the demo, as JSON lines for a
    file.

    Returns {"completions": [{"prompt", "text", "tokens", "reason"}, …]}, with `draft` also how many tokens were
    "guessed" and how many of them "right", with `logprobs` "likelihoods", with beams "score".
    """
    config = read_files(config)
    prompts = list(DEMO) if config.demo else [config.prompt or ""]
    if config.prompts is not None:
        prompts = read_prompts(config.prompts)
    engine, adapter = open_engine(config)
    engine.grammars.check(config)
    alone = config.prompt is not None and config.n == 1 and config.best == 1
    if config.prompt is not None and alone and not config.is_search:
        ids = engine.encode(config.prompt)
        engine.check(ids, config)
        sys.stdout.write(config.prompt)
        return {"completions": [_told(config.prompt, say(engine, ids, config, adapter))]}
    encoded = [engine.encode(prompt) for prompt in prompts]
    for number, ids in enumerate(encoded, start=1):  # a prompt that cannot be continued is told before the work
        try:
            engine.check(ids, config)
        except DataError as error:
            raise DataError(f"prompt {number}: {error.problem}", error.fix) from None
    results = []
    for number, completion in _completions(engine, encoded, config, adapter):
        prompt = prompts[number]
        results.append(_told(prompt, completion))
        if config.demo:
            print(f"── {prompt!r}\n{prompt}{completion.text}\n", flush=True)
        else:
            line = json.dumps(results[-1], ensure_ascii=False)
            print(f"{prompt}{completion.text}" if alone else line, flush=True)
    return {"completions": results}


def _completions(
    engine: Engine, encoded: Sequence[Sequence[int]], config: GenerateConfig, adapter: str | None
) -> Iterator[tuple[int, Completion]]:
    """Of each prompt, with its number, in order."""
    if config.is_search:
        for number, ids in enumerate(encoded):
            yield from ((number, completion) for completion in engine.search(ids, config, adapter=adapter))
        return
    for row, completion in enumerate(answers(engine, encoded, config, n=config.n, adapter=adapter)):
        yield row // config.n, completion


def say(engine: Engine, ids: Sequence[int], sampling: SamplingConfig, adapter: str | None = None) -> Completion:
    """Prints the continuation of `ids` as it comes, and a line end."""
    for event in engine.stream([ids], sampling, adapter=adapter):
        sys.stdout.write(event.text)
        sys.stdout.flush()
        if event.completion is not None:
            sys.stdout.write("\n")
            return event.completion
    raise AssertionError("a stream ends with a completion")


def _told(prompt: str, completion: Completion) -> dict[str, Any]:
    told = {
        "prompt": prompt,
        "text": completion.text,
        "tokens": len(completion.tokens),
        "reason": completion.reason,
    }
    if completion.score is not None:
        told["score"] = completion.score
    likelihoods = [asdict(likelihood) for likelihood in completion.likelihoods]
    guesses = {"guessed": completion.guessed, "right": completion.right} if completion.guessed else {}
    return told | guesses | ({"likelihoods": likelihoods} if likelihoods else {})


def read_prompts(path: Path) -> list[str]:
    """The lines of a file that are not empty. DataError when there is none or it is not text."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: byte {error.start:,} is {error.object[error.start]:#04x}") from None
    prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise DataError(f"{path} holds no prompt: every line is empty")
    return prompts
