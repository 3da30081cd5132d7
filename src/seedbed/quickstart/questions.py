"""The conversations that the quickstart fine-tunes on, most of one question, some of two or three unrelated ones, and
the problems that it asks later."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from seedbed.data.skills import SkillItem
from seedbed.shards import write_rows

SEVERAL = 0.3
"""Share of the conversations with more than one question, so that a model knows that the last one is asked."""

MOST = 3
"""Questions of a conversation."""

ROW = 128
"""Tokens of a row of the preset finetune/quickstart: no conversation is longer."""

TURN = 21
"""Tokens that ChatML puts around a question and its answer, as bytes; one more begins the conversation."""

SEARCHED = 50
"""Questions that are looked through for one that still fits."""


def conversations(items: Iterable[SkillItem], *, seed: int) -> Iterator[list[SkillItem]]:
    """The items in random order, each in one conversation, none longer than a row."""
    draw = random.Random(f"conversations {seed}")
    waiting = list(items)
    draw.shuffle(waiting)
    while waiting:
        asked = [waiting.pop()]
        count = draw.randint(2, MOST) if draw.random() < SEVERAL else 1
        while len(asked) < count:
            nearest = range(len(waiting) - 1, max(-1, len(waiting) - 1 - SEARCHED), -1)
            fitting = next((place for place in nearest if tokens_of([*asked, waiting[place]]) <= ROW), None)
            if fitting is None:
                break
            asked.append(waiting.pop(fitting))
        yield asked


def tokens_of(asked: Sequence[SkillItem]) -> int:
    """Length of a conversation in ChatML, as bytes."""
    return 1 + sum(TURN + len(item.prompt.encode()) + len(item.answer.encode()) for item in asked)


def write_conversations(path: Path, items: Iterable[SkillItem], *, seed: int) -> None:
    """One conversation a line, as `seedbed finetune` reads them."""
    write_rows(path, (_row(asked) for asked in conversations(items, seed=seed)))


def _row(asked: Sequence[SkillItem]) -> dict[str, Any]:
    messages: list[dict[str, str]] = []
    for item in asked:
        messages.append({"role": "user", "content": item.prompt})
        messages.append({"role": "assistant", "content": item.answer})
    return {"skills": [item.skill for item in asked], "messages": messages}


def write_problems(path: Path, items: Iterable[SkillItem]) -> None:
    """One problem a line, as `seedbed grpo` reads them: an answer is worth 1 when it is right to the letter, else 0."""
    write_rows(path, ({"prompt": item.prompt, "answer": item.answer, "reward": "exact"} for item in items))
