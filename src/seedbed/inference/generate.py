"""`seedbed generate`: continue texts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from seedbed.devices import choose_device
from seedbed.errors import DataError
from seedbed.inference.config import GenerateConfig, SamplingConfig
from seedbed.inference.engine import Completion, Engine

DEMO = ("Once upon a time", "def ", "The meaning of", "import ", "In the beginning")
"""Openings for `--demo`."""

ROWS_AT_ONCE = 32
"""Prompts that are continued together; bounds the cache."""


def generate(config: GenerateConfig) -> dict[str, Any]:
    """Prints continuations: as they come for one prompt, one by one for the demo, as JSON lines for a file.

    Returns {"completions": [{"prompt", "text", "tokens", "reason"}, …]}.
    """
    prompts = list(DEMO) if config.demo else [config.prompt or ""]
    if config.prompts is not None:
        prompts = read_prompts(config.prompts)
    engine = Engine.load(config.model, device=choose_device(config.device))
    if config.prompt is not None:
        completions = [_aloud(engine, config.prompt, config)]
    else:
        completions = []
        for first in range(0, len(prompts), ROWS_AT_ONCE):
            group = prompts[first : first + ROWS_AT_ONCE]
            completions += engine.complete([engine.encode(prompt) for prompt in group], config)
    results = [
        {"prompt": prompt, "text": done.text, "tokens": len(done.tokens), "reason": done.reason}
        for prompt, done in zip(prompts, completions, strict=True)
    ]
    if config.prompts is not None:
        for result in results:
            print(json.dumps(result, ensure_ascii=False))
    elif config.demo:
        for result in results:
            print(f"── {result['prompt']!r}\n{result['prompt']}{result['text']}\n")
    return {"completions": results}


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


def _aloud(engine: Engine, prompt: str, sampling: SamplingConfig) -> Completion:
    """Prints the prompt and its continuation as it comes."""
    sys.stdout.write(prompt)
    sys.stdout.flush()
    for event in engine.stream([engine.encode(prompt)], sampling):
        sys.stdout.write(event.text)
        sys.stdout.flush()
        if event.completion is not None:
            sys.stdout.write("\n")
            return event.completion
    raise AssertionError("a stream ends with a completion")
