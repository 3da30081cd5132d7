"""Prompts of problems as tokens: what a policy is asked. What does not fit is never cut in silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seedbed.data.preferences import Problem
from seedbed.data.rows import naming
from seedbed.errors import ConfigError, DataError
from seedbed.tokenizers.chat import encode_prompt
from seedbed.tokenizers.tokenizer import Tokenizer

Ids = NDArray[np.uint32]

Overlong = Literal["error", "drop", "truncate"]
"""What becomes of a prompt that is too long: it is an error, is dropped, or loses its beginning, after <s>."""


@dataclass(frozen=True)
class EncodedProblem:
    """A prompt to answer, and what its answers are checked by."""

    problem: Problem
    prompt: Ids


class ProblemEncoder:
    """Encodes problems for one tokenizer and a longest prompt, and counts what it leaves out.

    Raises DataError naming the row where its template cannot render it, or where it is longer than `length` tokens
    (`overlong`).
    """

    def __init__(self, tokenizer: Tokenizer, length: int, *, overlong: Overlong = "error"):
        if length < 2:
            raise ConfigError(f"length must be at least 2, got {length}")
        self.tokenizer = tokenizer
        self.length = length
        self.overlong = overlong
        self.counts: Counter[str] = Counter()
        """Rows by what became of them: kept, truncated (and kept), too long."""

    def problems(self, rows: Iterable[Problem]) -> Iterator[EncodedProblem]:
        for row in rows:
            with naming(row.name):
                fitting = self._fit(np.array(encode_prompt(self.tokenizer, row.prompt), dtype=np.uint32))
            if fitting is not None:
                yield EncodedProblem(row, fitting)

    def _fit(self, prompt: Ids) -> Ids | None:
        """The prompt, or what is left of it; None when the row is to be dropped."""
        if len(prompt) > self.length:
            if self.overlong == "error":
                raise DataError(
                    f"it has {len(prompt):,} tokens, {self.length:,} are allowed",
                    "Allow more, if the model has so many positions, or have such rows dropped or truncated.",
                )
            if self.overlong == "drop":
                self.counts["too long"] += 1
                return None
            start = prompt[: int(prompt[0] == self.tokenizer.bos_id)]
            prompt = np.concatenate([start, prompt[len(prompt) - self.length + len(start) :]])
            self.counts["truncated"] += 1
        self.counts["kept"] += 1
        return prompt
