"""How near a model's answers come to those that people gave: gold answers, of conversations.

An answer is exact when it has the same words; F1 is the harmonic mean of the share of its words that the gold answer
has, and of the gold answer's that it has (Rajpurkar et al. 2016, arXiv:1606.05250, §6.1).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seedbed.data.conversations import Conversation, read_conversations
from seedbed.data.rows import naming, row_name
from seedbed.errors import DataError
from seedbed.inference.answers import answers
from seedbed.inference.config import SamplingConfig
from seedbed.inference.engine import Engine
from seedbed.progress import progress
from seedbed.tokenizers.chat import encode_prompt

GOLD = "answers.jsonl"
"""The file of conversations, in a folder of data; the last turn of each is a gold answer."""


@dataclass(frozen=True)
class Question:
    """What is asked, and the gold answer."""

    prompt: str
    """The last thing that was said before."""
    answer: str
    ids: list[int]
    """Of the prompt."""


@dataclass(frozen=True)
class Answered:
    """One question with both answers."""

    prompt: str
    """The last thing that was said before."""
    gold: str
    given: str
    exact: bool
    f1: float


def read_questions(path: Path, engine: Engine) -> tuple[list[Question], int]:
    """Of each conversation its last answer, and how many are left out because the model's context does not hold them.
    DataError, naming the row, for one that does not end with an answer."""
    questions, left_out = [], 0
    for example in read_conversations(path):
        with naming(row_name(path, example.row)):
            if not isinstance(example, Conversation) or example.messages[-1]["role"] != "assistant":
                raise DataError("it does not end with an answer of the assistant")
            *before, last = example.messages
            ids = encode_prompt(engine.tokenizer, before)
        if engine.fits(ids):
            questions.append(Question(before[-1]["content"] if before else "", last["content"].strip(), ids))
        else:
            left_out += 1
    if not questions:
        raise DataError(f"{path} holds no conversation that the model's context holds")
    return questions, left_out


def ask(engine: Engine, questions: Sequence[Question], *, longest: int) -> list[Answered]:
    """Every question, greedily; an answer has at most `longest` tokens."""
    sampling = SamplingConfig(temperature=0, max_tokens=longest)
    answered: list[Answered] = []
    with progress("answers", total=len(questions), unit="questions") as advance:
        completions = answers(engine, [question.ids for question in questions], sampling)
        for question, completion in zip(questions, completions, strict=True):
            given = completion.text.strip()
            scores = words(given) == words(question.answer), f1(given, question.answer)
            answered.append(Answered(question.prompt, question.answer, given, *scores))
            advance(1)
    return answered


def words(text: str) -> list[str]:
    """Without case and punctuation."""
    return re.findall(r"\w+", text.casefold())


def f1(given: str, gold: str) -> float:
    """In [0, 1]; 1 where both hold the same words, as often. Of two texts without a word: 1."""
    one, other = Counter(words(given)), Counter(words(gold))
    if not one and not other:
        return 1.0
    common = (one & other).total()
    return 2 * common / (one.total() + other.total())
