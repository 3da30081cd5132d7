"""Prompts that are asked of a model as it learns: the engine answers over the live weights, and rewards judge.

Shape suffixes: B answers, F rewards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from seedbed.alignment.policy.choices import Order
from seedbed.alignment.rewards.rewards import Answer, Rewards, Worth
from seedbed.data.problems import EncodedProblem
from seedbed.inference.answers import answers
from seedbed.inference.config import SamplingConfig
from seedbed.inference.engine import Engine
from seedbed.inference.generation import Completion
from seedbed.inference.live import live_engine
from seedbed.model.transformer import Transformer
from seedbed.runs import sha256_json
from seedbed.tokenizers.tokenizer import Tokenizer
from seedbed.training.precision import Precision


@dataclass(frozen=True)
class Asking:
    """How prompts are asked, and how often what was answered is learned from."""

    answers: int
    """Of a rollout, all prompts together."""
    group: int
    """Of a prompt."""
    passes: int
    """Over each rollout."""
    batch: int
    """Answers of an optimizer step."""
    max_tokens: int
    temperature: float
    order: Order = "shuffled"
    attempts: int = 1
    """How often other prompts are asked in place of those whose answers are all worth the same."""
    engine_rows: int = 64
    """Answers that are made at once."""
    seed: int = 0

    @property
    def steps(self) -> int:
        """Optimizer steps of a rollout."""
        return self.passes * self.answers // self.batch


class Asked:
    """The engine over live weights, and what rewards its answers: what training and validation share."""

    def __init__(self, problems: Sequence[EncodedProblem], tokenizer: Tokenizer, rewards: Rewards, asking: Asking):
        self.problems, self.tokenizer, self.rewards, self.asking = problems, tokenizer, rewards, asking
        self.prompts = [problem.prompt.tolist() for problem in problems]
        self.longest = max(map(len, self.prompts)) + asking.max_tokens
        """Tokens of a row."""
        self.learner: Transformer | None = None
        self.precision: Precision | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Of problems, rewards and how they are asked."""
        digest = hashlib.sha256()
        for problem in self.problems:
            row = problem.problem
            digest.update(repr((problem.prompt.tolist(), row.reference, row.reward, row.tests)).encode())
        return sha256_json({"problems": digest.hexdigest(), **self.rewards.fingerprint, **vars(self.asking)})

    @property
    def samples(self) -> int:
        return len(self.problems)

    def answering(self) -> AbstractContextManager[Engine]:
        """The engine over the weights as they are; afterwards the model is in the mode that it was in."""
        assert self.learner is not None  # someone learns
        return live_engine(self.learner, self.tokenizer, rows=self.asking.engine_rows, longest=self.longest)

    def answers(
        self, engine: Engine, prompts: Sequence[int], seeds: Sequence[int], group: int, temperature: float
    ) -> list[Completion]:
        """`group` answers to each of the prompts, by their numbers, side by side."""
        usual = SamplingConfig(max_tokens=self.asking.max_tokens, temperature=temperature, logprobs=0)
        samplings = [replace(usual, seed=seed) for seed in seeds]
        return list(answers(engine, [self.prompts[prompt] for prompt in prompts], samplings, n=group))

    def judged(self, prompts: Sequence[int], answers: Sequence[Completion]) -> Worth:
        """What answers to prompts, by their numbers, are worth."""
        return self.rewards(
            [
                Answer(
                    self.problems[prompt].problem,
                    answer.text,
                    self.prompts[prompt],
                    [each.token for each in answer.likelihoods],
                    answer.reason == "end",
                )
                for prompt, answer in zip(prompts, answers, strict=True)
            ]
        )

    def learn(self, learner: Transformer, precision: Precision) -> None:
        """A run begins: from now on this model answers, as it is at each question."""
        self.learner, self.precision = learner, precision


@dataclass(frozen=True)
class Answers:
    """What a validation eats: what greedy answers were worth."""

    rewards_B: Tensor
    rewards_BF: Tensor
    lengths_B: Tensor
    ended_B: Tensor
    tokens: int

    def to(self, device: torch.device | str) -> Answers:
        return self


class HeldOut(Asked):
    """Problems that are not learned from, answered greedily."""

    def batch(self, first: int, count: int) -> Answers:
        prompts = [place % len(self.prompts) for place in range(first, first + count)]
        with self.answering() as engine:
            answers = self.answers(engine, prompts, [0] * len(prompts), 1, 0.0)
        rewards_BF = self.judged(prompts, answers).rewards_BF
        lengths = [len(answer.likelihoods) for answer in answers]
        ended_B = torch.tensor([answer.reason == "end" for answer in answers])
        tokens = sum(lengths) + sum(len(self.prompts[prompt]) for prompt in prompts)
        return Answers(self.rewards.total(rewards_BF), rewards_BF, torch.tensor(lengths), ended_B, tokens)
