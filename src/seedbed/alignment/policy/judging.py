"""Reward models as the reward of a policy: they read the very tokens that it read and said.

Shape suffixes: B answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seedbed.alignment.reward_models.config import RewardConfig
from seedbed.alignment.reward_models.ensemble import Ensemble
from seedbed.alignment.rewards.config import RewardModelsConfig
from seedbed.alignment.rewards.rules import Answer
from seedbed.configuration import load_config
from seedbed.errors import ConfigError
from seedbed.model.folder import find_model
from seedbed.runs import input_hash
from seedbed.tokenizers.chat import encode_answer
from seedbed.tokenizers.tokenizer import Tokenizer
from seedbed.training.settings import CONFIG

ROLE = "reward model"
"""Of a reward model among what a run is made from."""


class RewardModels:
    """Frozen, and asked together."""

    def __init__(self, models: Ensemble, tokenizer: Tokenizer, *, weight: float = 1.0, cut_penalty: float = 0.0):
        """`tokenizer`: the policy's. `cut_penalty`: what is taken off an answer that was cut off."""
        self.models, self.weight, self.cut_penalty = models, weight, cut_penalty
        question, answer = ({"role": role, "content": "a"} for role in ("user", "assistant"))
        self.end = int(encode_answer(tokenizer, [question], [answer])[0][-1])
        """The token at which a reward model has learned to score: the one that ends an answer."""
        self.inputs: dict[str, Path] = {}
        """Their folders, by role."""

    @classmethod
    def load(cls, config: RewardModelsConfig, tokenizer: Tokenizer, device: torch.device) -> RewardModels:
        """As the config says. ConfigError, naming the run, for a model that reads other tokens than the policy says, or
        that has learned to score steps: at the end of an answer, where none ends, it says nothing."""
        for run in config.runs:
            if (run / CONFIG).is_file() and load_config(run / CONFIG, RewardConfig).loss == "process":
                raise ConfigError(
                    f"the reward model {run} scores steps, not answers", "Make one of preferences: seedbed reward."
                )
        models = Ensemble.load(
            config.runs,
            device=device,
            standardise=config.standardise,
            combine=config.combine,
            caution=config.caution,
        )
        for run, member in zip(config.runs, models.members, strict=True):
            if member.tokenizer.hash != tokenizer.hash:
                raise ConfigError(
                    f"the reward model {run} has another tokenizer, or chat template, than the policy",
                    "Make it of the same model: seedbed reward --model MODEL.",
                )
        made = cls(models, tokenizer, weight=config.weight, cut_penalty=config.cut_penalty)
        several = len(config.runs) > 1
        made.inputs = {f"{ROLE} {i}" if several else ROLE: find_model(run) for i, run in enumerate(config.runs, 1)}
        return made

    @cached_property
    def fingerprint(self) -> Mapping[str, object]:
        """Of what decides what they say."""
        hashes = {role: input_hash(folder) for role, folder in self.inputs.items()}
        told = {"combine": self.models.combine, "caution": self.models.caution, "cut_penalty": self.cut_penalty}
        return hashes | told | {"units": [member.unit for member in self.models.members]}

    def refuse(self, longest: int) -> None:
        """ConfigError where one of them cannot read the longest prompt with the longest answer."""
        context = min(member.model.config.context for member in self.models.members)
        if longest > context:
            raise ConfigError(
                f"a prompt with its answer may have {longest:,} tokens, and a reward model reads {context:,}",
                "Give a smaller max_tokens or prompt_tokens.",
            )

    def __call__(self, answers: Sequence[Answer]) -> Tensor:
        """What they make together of each answer (B). One that was cut off is scored as if it had ended there, its last
        token given up for the end, but never above nought, less the penalty: else a policy whose score grows with what
        it says would learn to say no end."""
        if not answers:  # of a process that asked no prompt
            return torch.zeros(0)
        scores_B = self.models.score_tokens([self._encoded(answer) for answer in answers])
        ended_B = torch.tensor([answer.ended for answer in answers])
        return torch.where(ended_B, scores_B, scores_B.clamp(max=0) - self.cut_penalty)

    def _encoded(self, answer: Answer) -> tuple[np.ndarray, np.ndarray]:
        """As a row of `seedbed reward`: prompt, answer and the token that ends it; and which are the answer's."""
        ids = np.array([*answer.prompt, *answer.said[:-1], self.end], dtype=np.uint32)
        return ids, np.arange(len(ids)) >= len(answer.prompt)
