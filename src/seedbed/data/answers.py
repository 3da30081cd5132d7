"""Prompts and their answers as tokens, for alignment.

A prompt is encoded once, and each answer from where the prompt ends: no token reaches across, so the log-probability of
an answer is that of exactly what generation would have said. What does not fit is never cut in silence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seedbed.data.messages import Messages
from seedbed.data.preferences import Judgement, Preference, Problem, Useless
from seedbed.data.rows import naming
from seedbed.errors import ConfigError, DataError
from seedbed.tokenizers.chat import Encoded, encode_answer, encode_prompt
from seedbed.tokenizers.tokenizer import Tokenizer

Ids = NDArray[np.uint32]

Overlong = Literal["error", "drop", "truncate"]
"""What becomes of a row that is too long: it is an error, is dropped, or its prompt loses its beginning, after <s>.
Answers are never cut: a row whose answer alone is too long is then dropped."""


@dataclass(frozen=True)
class EncodedPreference:
    """A prompt and two answers to it; an answer is its ids and which of them count."""

    name: str
    prompt: Ids
    chosen: Encoded
    rejected: Encoded
    margin: float | None


@dataclass(frozen=True)
class EncodedJudgement:
    """A prompt and an answer that is wanted, or not."""

    name: str
    prompt: Ids
    completion: Encoded
    label: bool


@dataclass(frozen=True)
class EncodedProblem:
    """A prompt to answer, and what its answers are checked by."""

    problem: Problem
    prompt: Ids


def joined(prompt: Ids, answer: Encoded) -> Encoded:
    """Prompt and answer as one row: its ids, and which of them count, none of the prompt's."""
    ids, mask = answer
    return np.concatenate([prompt, ids]), np.concatenate([np.zeros(len(prompt), dtype=np.bool_), mask])


class AnswerEncoder:
    """Encodes rows for one tokenizer and a longest length, and counts what it leaves out.

    Raises DataError naming the row where its template cannot render it, where it is longer than `length` tokens
    (`overlong`), or where both answers are the same tokens, though not the same text (`useless`): templates trim, and
    tokenizers of characters know not all.
    """

    def __init__(self, tokenizer: Tokenizer, length: int, *, overlong: Overlong = "error", useless: Useless = "error"):
        """`length` counts prompt and answer together; of a problem, the prompt alone."""
        if length < 2:
            raise ConfigError(f"length must be at least 2, got {length}")
        self.tokenizer = tokenizer
        self.length = length
        self.overlong = overlong
        self.useless = useless
        self.counts: Counter[str] = Counter()
        """Rows by what became of them: kept, truncated (and kept), too long, equal answers."""

    def preferences(self, rows: Iterable[Preference]) -> Iterator[EncodedPreference]:
        for row in rows:
            with naming(row.name):
                prompt, (chosen, rejected) = self._encode(row.prompt, row.chosen, row.rejected)
                if np.array_equal(chosen[0], rejected[0]):
                    if self.useless == "error":
                        raise DataError("chosen and rejected are the same tokens, though not the same text")
                    self.counts["equal answers"] += 1
                    continue
                fitting = self._fit(prompt, max(len(chosen[0]), len(rejected[0])))
            if fitting is not None:
                yield EncodedPreference(row.name, fitting, chosen, rejected, row.margin)

    def judgements(self, rows: Iterable[Judgement]) -> Iterator[EncodedJudgement]:
        for row in rows:
            with naming(row.name):
                prompt, (completion,) = self._encode(row.prompt, row.completion)
                fitting = self._fit(prompt, len(completion[0]))
            if fitting is not None:
                yield EncodedJudgement(row.name, fitting, completion, row.label)

    def problems(self, rows: Iterable[Problem]) -> Iterator[EncodedProblem]:
        for row in rows:
            with naming(row.name):
                prompt, _ = self._encode(row.prompt)
                fitting = self._fit(prompt, 0)
            if fitting is not None:
                yield EncodedProblem(row, fitting)

    def _encode(self, prompt: Messages, *answers: Messages) -> tuple[Ids, list[Encoded]]:
        ids = np.array(encode_prompt(self.tokenizer, prompt), dtype=np.uint32)
        return ids, [encode_answer(self.tokenizer, prompt, answer) for answer in answers]

    def _fit(self, prompt: Ids, answer: int) -> Ids | None:
        """The prompt with room for so many tokens of an answer; None when the row is to be dropped."""
        tokens, room = len(prompt) + answer, self.length - answer
        if tokens > self.length:
            if self.overlong == "error":
                raise DataError(
                    f"it has {tokens:,} tokens, {self.length:,} are allowed",
                    "Allow more, if the model has so many positions, or have such rows dropped or truncated.",
                )
            start = prompt[: int(prompt[0] == self.tokenizer.bos_id)]
            if self.overlong == "drop" or room <= len(start):
                self.counts["too long"] += 1
                return None
            prompt = np.concatenate([start, prompt[len(prompt) - room + len(start) :]])
            self.counts["truncated"] += 1
        self.counts["kept"] += 1
        return prompt
