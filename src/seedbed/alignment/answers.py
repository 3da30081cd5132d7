"""Rows of people's judgements as tokens: read, split by prompt, encoded, and fitted into rows.

A prompt is encoded once, and each answer from where the prompt ends: no token reaches across, so the log-probability of
an answer is that of exactly what generation would have said.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from seedbed.alignment.config import AnswersConfig
from seedbed.data.messages import Messages
from seedbed.data.preferences import Judgement, Preference, Solution, read_rows
from seedbed.data.rows import naming
from seedbed.errors import ConfigError, DataError
from seedbed.model.config import ModelConfig
from seedbed.progress import progress
from seedbed.tokenizers.chat import Encoded, encode_answer, encode_prompt
from seedbed.tokenizers.tokenizer import Tokenizer

STEP_END = "\n"
"""Between the steps of an answer."""

Row = TypeVar("Row", Preference, Judgement, Solution)


class Asked(Protocol):
    """A row that answers a prompt."""

    @property
    def prompt(self) -> Messages: ...


A = TypeVar("A", bound=Asked)


def row_length(length: int | None, model: ModelConfig) -> int:
    """Tokens of a row. ConfigError when the model reads fewer."""
    length = length or min(512, model.context)
    if length > model.context:
        raise ConfigError(f"length is {length}, longer than the model's context {model.context}")
    return length


def read_split(kind: type[Row], data: Path, config: AnswersConfig, counts: Counter[str]) -> tuple[list[Row], list[Row]]:
    """The rows to learn from and those to validate on. What is left out of both is counted, by reason."""

    def read(path: Path) -> list[Row]:
        found = []
        with progress(f"reading {path}", unit="rows") as advance:
            for row in read_rows(kind, path, useless=config.useless, counts=counts):
                found.append(row)
                advance(1)
        return found

    rows = read(data)
    if config.validation is not None:
        return rows, read(config.validation)
    return split_by_prompt(rows, config.validation_fraction, data)


def split_by_prompt(rows: Sequence[A], fraction: float, source: Path) -> tuple[list[A], list[A]]:
    """Rows to learn from, and about a share of them, at least one, whose prompts stand in none of the former."""
    places = [hashlib.sha256(repr(row.prompt).encode("utf-8", "surrogatepass")).digest() for row in rows]
    ordered = sorted(places)
    last = ordered[max(1, round(fraction * len(rows))) - 1]
    held_out = [row for row, place in zip(rows, places, strict=True) if place <= last]
    if len(held_out) == len(rows):
        raise DataError(f"{source} holds one prompt: none is left to validate on", "Give --validation FILE.")
    return [row for row, place in zip(rows, places, strict=True) if place > last], held_out


@dataclass(frozen=True)
class Answered:
    """A prompt and answers to it, as tokens."""

    name: str
    """File and row, for messages to people."""
    prompt: NDArray[np.uint32]
    answers: tuple[Encoded, ...]

    def whole(self, answer: Encoded) -> Encoded:
        """The prompt with an answer; of its ids the answer's are to be learned."""
        ids, mask = answer
        return np.concatenate([self.prompt, ids]), np.concatenate([np.zeros(len(self.prompt), dtype=bool), mask])


def encode_answers(tokenizer: Tokenizer, name: str, prompt: Messages, answers: Sequence[Messages]) -> Answered:
    """DataError, naming the row, where the chat template cannot tell what the assistant says."""
    with naming(name):
        ids = np.array(encode_prompt(tokenizer, prompt), dtype=np.uint32)
        return Answered(name, ids, tuple(encode_answer(tokenizer, prompt, answer) for answer in answers))


def encode_steps(tokenizer: Tokenizer, name: str, prompt: Messages, steps: Sequence[str]) -> Answered:
    """One answer made of steps, each on lines of its own; what is marked in it are the tokens at which steps end.

    DataError where the chat template changes the answer, or two steps end in one token.
    """
    whole = encode_answers(tokenizer, name, prompt, ([{"role": "assistant", "content": STEP_END.join(steps)}],))
    (ids, _), ends = whole.answers[0], np.cumsum([len(step.encode()) + len(STEP_END) for step in steps])
    said = np.cumsum(tokenizer.token_bytes()[ids])
    places = np.searchsorted(said, ends - len(STEP_END))
    if said[-1] != ends[-1] - len(STEP_END) or len(set(places.tolist())) < len(steps):
        raise DataError("its steps cannot be told apart in the tokens that the chat template makes of its answer")
    mask = np.zeros(len(ids), dtype=np.bool_)
    mask[places] = True
    return Answered(name, whole.prompt, ((ids, mask),))


def fit(row: Answered, length: int, fate: str, counts: Counter[str]) -> Answered | None:
    """The row where each answer fits behind its prompt; None where it is left out, which is counted."""
    longest = max(len(ids) for ids, _ in row.answers)
    room = length - len(row.prompt)
    if longest <= room:
        return row
    if fate == "error":
        raise DataError(
            f"{row.name}: its prompt has {len(row.prompt):,} tokens and its longest answer {longest:,}, but a row "
            f"holds {length:,}",
            f"Set the length to at least {len(row.prompt) + longest}, if the model has so many positions, or shorten "
            "it; --overlong drop leaves such rows out, --overlong truncate cuts the answer.",
        )
    if room < 1 or fate == "drop":
        counts["overlong prompt" if room < 1 else "overlong answer"] += 1
        return None
    cut = tuple((ids[:room], mask[:room]) for ids, mask in row.answers)
    if not all(mask.any() for _, mask in cut) or _alike(cut):
        counts["nothing left once truncated"] += 1
        return None
    counts["truncated"] += 1
    return Answered(row.name, row.prompt, cut)


def refuse_alike(row: Answered, fate: str, counts: Counter[str]) -> bool:
    """Whether answers that differ as texts are the same tokens, where such rows are dropped; else a DataError."""
    if not _alike(row.answers):
        return False
    if fate == "error":
        raise DataError(
            f"{row.name}: its answers are the same tokens once the chat template has trimmed them",
            "--useless drop leaves such rows out.",
        )
    counts["equal answers"] += 1
    return True


def _alike(answers: Sequence[Encoded]) -> bool:
    return len(answers) > 1 and all(np.array_equal(ids, answers[0][0]) for ids, _ in answers[1:])
