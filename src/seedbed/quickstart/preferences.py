"""What the quickstart aligns on: the right answer to a question, and a wrong one beside it."""

from __future__ import annotations

import random
import string
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from seedbed.data.skills import SkillItem
from seedbed.inference.answers import answers
from seedbed.inference.config import SamplingConfig
from seedbed.inference.engine import Engine
from seedbed.progress import progress
from seedbed.shards import write_rows
from seedbed.tokenizers.chat import encode_prompt

LONGEST_ANSWER = 32
"""Tokens, which are bytes; a longer one has gone astray."""


def write_preferences(path: Path, engine: Engine, items: Sequence[SkillItem], *, seed: int) -> None:
    """One preference a line, as `seedbed dpo` reads them, of what the engine says to each question."""
    prompts = [encode_prompt(engine.tokenizer, [{"role": "user", "content": item.prompt}]) for item in items]
    sampling = SamplingConfig(max_tokens=LONGEST_ANSWER, seed=seed)
    said: list[str] = []
    with progress("preferences", total=len(items), unit="questions") as advance:
        for completion in answers(engine, prompts, sampling):
            said.append(completion.text if completion.reason == "end" else "")
            advance(1)
    write_rows(path, preferences(items, said, seed=seed))


def preferences(items: Iterable[SkillItem], said: Iterable[str], *, seed: int) -> Iterator[dict[str, str]]:
    """A row a question. The wrong answer is what a model has said, if it has said something wrong; else one with a slip
    in it, as a model might yet make."""
    draw = random.Random(f"slips {seed}")
    for item, answer in zip(items, said, strict=True):
        wrong = answer.strip()
        while wrong in ("", item.answer):
            wrong = slip(item.answer, draw)
        yield {"skill": item.skill, "prompt": item.prompt, "chosen": item.answer, "rejected": wrong}


def slip(answer: str, draw: random.Random) -> str:
    """A number near that one; or a text with another letter, two that have changed places, one too few or too many. It
    may be the answer itself, as where two equal letters change places."""
    if answer.isdecimal():
        return str(max(0, int(answer) + draw.choice([-10, -2, -1, 1, 2, 10])))
    letters, place = list(answer), draw.randrange(len(answer))
    kind = draw.choice(["other", "swapped", "missing", "twice"])
    if kind == "other" and letters[place] != " ":
        letters[place] = draw.choice(string.digits if letters[place].isdecimal() else string.ascii_lowercase)
    elif kind == "swapped":
        letters[place - 1], letters[place] = letters[place], letters[place - 1]
    elif kind == "missing" and len(letters) > 1:
        del letters[place]
    elif kind == "twice":
        letters.insert(place, letters[place])
    return " ".join("".join(letters).split())
