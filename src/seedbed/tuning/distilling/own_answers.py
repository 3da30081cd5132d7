"""What the student itself says to the prompts of conversations, as rows to learn from.

On-policy distillation (GKD: Agarwal et al. 2023, arXiv:2306.13649, algorithm 1). A student that only ever reads right
answers never learns what to say behind its own mistakes; here it is told how the teacher would go on from there. The
gradient does not pass through the draws (§3).

A row is a function of the student's weights, the seed and the row's number alone, and is learned from in the step whose
weights said it. So a run that goes on from a checkpoint says the very same again, and nothing need be kept.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from seedbed.data.batches.batch import BatchSource, TokenBatch
from seedbed.data.batches.mixture import MixtureSource, Phase
from seedbed.data.batches.order import Epochs
from seedbed.data.batches.packing import lay_out, pack
from seedbed.errors import DataError
from seedbed.inference.answers import answers
from seedbed.inference.config import SamplingConfig
from seedbed.inference.live import live_engine, seed_of
from seedbed.model.transformer import Transformer
from seedbed.runs import sha256_json
from seedbed.tokenizers.chat import Encoded
from seedbed.tokenizers.tokenizer import Tokenizer
from seedbed.tuning.distilling.config import OnPolicyConfig

ENGINE_ROWS = 64
"""Answers that are made at once, at most."""


class OwnAnswers:
    """A batch source of prompts with the student's answers. One sample is one row.

    Prompts are packed once, each with room for its longest answer: which of them stand in a row is known before any of
    them is answered.
    """

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        tokenizer: Tokenizer,
        config: OnPolicyConfig,
        *,
        length: int,
        seed: int,
        pad_id: int,
    ):
        """Each prompt is shorter than a row, which is of `length` tokens."""
        self.prompts, self.tokenizer, self.config = prompts, tokenizer, config
        self.length, self.seed, self.pad_id = length, seed, pad_id
        self.rooms = [min(config.max_tokens, length - len(prompt)) for prompt in prompts]
        """Tokens of the longest answer to each."""
        sizes = [len(prompt) + room for prompt, room in zip(prompts, self.rooms, strict=True)]
        self._rows = pack(np.array(sizes, dtype=np.int64), length, seed)
        self._order = Epochs(len(self._rows), seed)
        self.student: Transformer | None = None

    @property
    def samples(self) -> int:
        """Rows in which every prompt is answered once."""
        return len(self._rows)

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for prompt in self.prompts:
            digest.update(repr(list(prompt)).encode())
        placed = {"length": self.length, "seed": self.seed, "pad_id": self.pad_id}
        # How large a share of all rows these are is for the mixture to say.
        how = {"temperature": self.config.temperature, "max_tokens": self.config.max_tokens}
        return sha256_json({"own answers to": digest.hexdigest(), **how, **placed})

    def learn(self, student: Transformer) -> None:
        """A run begins: from now on this model answers, as it is at each step."""
        self.student = student

    def among(self, data: BatchSource[TokenBatch]) -> MixtureSource:
        """These rows for their share, those of the data for the rest. In an epoch as many prompts are met as the data
        has, each in the one way or the other."""
        own = self.config.share
        epoch = math.ceil(1 / ((1 - own) / data.samples + own / self.samples))
        return MixtureSource([data, self], [Phase(0, (1 - own, own))], epoch, self.seed)

    def batch(self, first: int, count: int) -> TokenBatch:
        """Rows first … first + count − 1, answered by the weights as they are."""
        rows = [self._rows[place] for place in self._order(first, count)]
        places = [(first + b, prompt) for b, row in enumerate(rows) for prompt in row]
        answered = self._answered(places)
        batch = lay_out([[next(answered) for _ in row] for row in rows], self.length, self.pad_id)
        return replace(batch, own_B=torch.ones(count, dtype=torch.bool))

    def _answered(self, places: Sequence[tuple[int, int]]) -> Iterator[Encoded]:
        """A prompt and an answer to it, which alone counts, for each sample and number of a prompt."""
        assert self.student is not None  # someone learns
        usual = SamplingConfig(temperature=self.config.temperature, logprobs=0)
        samplings = [
            replace(usual, max_tokens=self.rooms[prompt], seed=seed_of(f"{self.seed}/{sample}/{prompt}"))
            for sample, prompt in places
        ]
        asked = [self.prompts[prompt] for _, prompt in places]
        with live_engine(
            self.student, self.tokenizer, rows=min(ENGINE_ROWS, len(asked)), longest=self.length
        ) as engine:
            completions = list(answers(engine, asked, samplings))
        for prompt, completion in zip(asked, completions, strict=True):
            ids = np.array([*prompt, *completion.said], dtype=np.uint32)
            yield ids, np.arange(len(ids)) >= len(prompt)


def prompts_of(encoded: Sequence[Encoded], names: Sequence[str]) -> list[list[int]]:
    """All that comes before each reply that is learned from, so of a conversation of several replies as many prompts.
    DataError, naming the row, for a text that asks nothing."""
    found = []
    for (ids, mask), name in zip(encoded, names, strict=True):
        begins = np.flatnonzero(mask & ~np.concatenate([[False], mask[:-1]]))
        if begins[0] < 2:
            raise DataError(
                f"{name} is a text and no conversation: it asks nothing that the student could answer",
                "Leave on_policy.share out, or such rows; plain text goes into replay.tokens.",
            )
        found += [ids[:begin].tolist() for begin in begins]
    return found
