"""How many verifiable questions a model answers exactly, by skill."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seedbed.data.skills import SkillItem
from seedbed.errors import DataError
from seedbed.inference.answers import answers
from seedbed.inference.config import SamplingConfig
from seedbed.inference.engine import Engine
from seedbed.progress import progress
from seedbed.shards import read_rows, write_rows
from seedbed.tokenizers.chat import encode_prompt

QUESTIONS = "skills.jsonl"
"""The file of questions, with their right answers, in a folder of data."""

GREEDY = SamplingConfig(temperature=0, max_tokens=32)
SECOND_TURNS = 4
"""One question in this many is asked once more, as the second of a conversation."""


@dataclass(frozen=True)
class SkillScores:
    """Shares of exact answers in [0, 1]."""

    skills_exact: float
    """Over all questions."""
    by_skill: dict[str, float]
    second_turn_exact: float | None
    """Over a share of the questions, each asked after another one and its right answer; None when the model's context
    holds no two."""
    second_turns_left_out: int
    """Questions of that share that are not in it: the context does not hold them after the other one."""
    answers: list[dict[str, str]]
    """Every question with its right answer and the given one."""


def write_items(path: Path, items: Iterable[SkillItem]) -> None:
    """One JSON object a line, as `read_items` reads them."""
    write_rows(path, map(asdict, items))


def read_items(path: Path) -> list[SkillItem]:
    """Rows of skill, prompt and answer. DataError names the row that lacks one."""
    items = []
    for number, row in enumerate(read_rows(path), start=1):
        lacking = [key for key in ("skill", "prompt", "answer") if not isinstance(row.get(key), str)]
        if lacking:
            raise DataError(f"{path}, row {number}: {lacking[0]} is missing or not a text")
        items.append(SkillItem(row["skill"], str(row.get("arguments", row["prompt"])), row["prompt"], row["answer"]))
    if not items:
        raise DataError(f"{path} holds no question")
    return items


def score_skills(engine: Engine, items: Sequence[SkillItem]) -> SkillScores:
    """Asks every question through the chat template, greedily; an answer counts when it is right to the letter."""
    given = _ask(engine, [encode_prompt(engine.tokenizer, _question(item)) for item in items])
    turns = dict(_second_turns(engine, items))
    again = {item: prompt for item, prompt in turns.items() if engine.fits(prompt)}
    second = tally_answers(list(again), _ask(engine, list(again.values())))["skills_exact"] if again else None
    return SkillScores(
        **tally_answers(items, given),
        second_turn_exact=second,
        second_turns_left_out=len(turns) - len(again),
        answers=_table(items, given),
    )


def _second_turns(engine: Engine, items: Sequence[SkillItem]) -> Iterator[tuple[SkillItem, list[int]]]:
    """Some of the questions, and the prompts that ask them after any other question and its right answer."""
    draw = random.Random(0)
    for item in items[::SECOND_TURNS]:
        others = [other for other in items if other != item]
        if not others:  # a file of one question
            return
        earlier = draw.choice(others)
        answer = {"role": "assistant", "content": earlier.answer}
        yield item, encode_prompt(engine.tokenizer, [*_question(earlier), answer, *_question(item)])


def _question(item: SkillItem) -> list[dict[str, str]]:
    return [{"role": "user", "content": item.prompt}]


def _ask(engine: Engine, prompts: Sequence[Sequence[int]]) -> list[str]:
    """The answer to each prompt."""
    given = []
    with progress("skills", total=len(prompts), unit="questions") as advance:
        for completion in answers(engine, prompts, GREEDY):
            # An answer that was not ended, only cut off, is none.
            given.append(completion.text if completion.reason == "end" else f"{completion.text}…")
            advance(1)
    return given


def score_constant(items: Sequence[SkillItem], constants: dict[str, str]) -> dict[str, Any]:
    """The scores of always giving the same answer to every question of a skill."""
    return tally_answers(items, [constants.get(item.skill, "") for item in items])


def tally_answers(items: Sequence[SkillItem], given: Sequence[str]) -> dict[str, Any]:
    """{"skills_exact", "by_skill"} of the given answers."""
    exact: dict[str, list[bool]] = {}
    for item, answer in zip(items, given, strict=True):
        exact.setdefault(item.skill, []).append(answer.strip() == item.answer)
    by_skill = {skill: sum(hits) / len(hits) for skill, hits in exact.items()}
    return {"skills_exact": sum(map(sum, exact.values())) / len(items), "by_skill": by_skill}


def _table(items: Sequence[SkillItem], given: Sequence[str]) -> list[dict[str, str]]:
    return [
        {"skill": item.skill, "prompt": item.prompt, "answer": item.answer, "given": answer}
        for item, answer in zip(items, given, strict=True)
    ]
