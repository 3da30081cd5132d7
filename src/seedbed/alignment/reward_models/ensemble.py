"""Reward models at work: conversations in, scores out; one model, or several that are asked together.

Shape suffixes: C conversations, R reward models, B rows, T positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from seedbed.alignment.answers import encode_steps
from seedbed.alignment.completions import collate
from seedbed.alignment.reward_models.scores import completion_scores, target_scores
from seedbed.alignment.rewards.shaping import scale
from seedbed.errors import ConfigError, DataError
from seedbed.model.folder import load_model
from seedbed.model.transformer import Transformer
from seedbed.runs import read_json
from seedbed.tokenizers.chat import Encoded, encode_conversation
from seedbed.tokenizers.tokenizer import Tokenizer

Conversation = Sequence[Mapping[str, Any]]
"""Messages, the last of them the assistant's: what is scored."""

RESULT = "result.json"
"""Of a run, what it has come to."""


class RewardModel:
    """A model that `seedbed reward` made, or one of transformers' …ForSequenceClassification with one label."""

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        *,
        at_once: int = 16,
        unit: tuple[float, float] = (0.0, 1.0),
        name: str = "the model",
    ):
        """`at_once`: conversations in one pass. `unit`: what scores are told from, and in. `name`: for messages.
        ConfigError for a model that gives no scores."""
        if model.config.head != "score":
            raise ConfigError(f"{name} gives tokens, no scores", "Make a reward model of it: seedbed reward --model …")
        self.model, self.tokenizer, self.at_once = model.eval().requires_grad_(False), tokenizer, at_once
        self.unit = unit

    @classmethod
    def load(cls, path: str | Path, *, device: str | torch.device = "cpu", standardise: bool = False) -> Self:
        """From a run, a checkpoint or a model folder. `standardise`: scores are told in standard deviations from the
        mean of the run's validation data, which ConfigError misses where there is no run."""
        unit = validation_unit(Path(path)) if standardise else (0.0, 1.0)
        return cls(*load_model(Path(path), device=device, scores=True), unit=unit, name=str(path))

    def score(self, conversations: Sequence[Conversation]) -> list[float]:
        """The score of the last reply of each conversation. DataError, with its number, where there is none, or where
        it is longer than the model's context."""
        encoded = [self._encode(number, messages) for number, messages in enumerate(conversations, start=1)]
        scores: list[float] = self.score_tokens(encoded).tolist()
        return scores

    @torch.no_grad()
    def score_tokens(self, encoded: Sequence[Encoded]) -> Tensor:
        """The same (C) of ids and which of them are the reply's, its last token the one that ends it."""
        parts = [torch.zeros(0)]
        for first in range(0, len(encoded), self.at_once):
            batch = collate(encoded[first : first + self.at_once], self.tokenizer.pad_id or 0).to(self.model.device)
            parts.append(scale(completion_scores(self.model, batch), *self.unit).cpu())
        return torch.cat(parts)

    @torch.no_grad()
    def score_steps(self, prompt: Conversation, steps: Sequence[str]) -> list[float]:
        """The probability that each step of an answer is right, by a model that learned from steps."""
        row = encode_steps(self.tokenizer, "the answer", [dict(message) for message in prompt], steps)
        batch = collate([row.whole(row.answers[0])], self.tokenizer.pad_id or 0).to(self.model.device)
        chances: list[float] = target_scores(self.model, batch).sigmoid().tolist()
        return chances

    def _encode(self, number: int, messages: Conversation) -> Encoded:
        if not messages or messages[-1].get("role") != "assistant":
            raise DataError(
                f"conversation {number}: its last message is not the assistant's: there is nothing to score"
            )
        ids, mask = encode_conversation(self.tokenizer, list(messages))
        end = int(np.flatnonzero(mask)[-1]) + 1  # a template may write more after it
        if end > self.model.config.context:
            context = self.model.config.context
            raise DataError(f"conversation {number} has {end:,} tokens, the model's context {context:,}")
        return ids[:end], mask[:end]


def validation_unit(run: Path) -> tuple[float, float]:
    """Mean and standard deviation of the scores of a run's validation data. ConfigError where it tells none."""
    result = read_json(run / RESULT) if (run / RESULT).is_file() else {}
    if not {"val_score", "val_score_deviation"} <= result.keys():
        raise ConfigError(
            f"{run} does not tell the scores of its validation data, by which they are to be standardised",
            "Give the run of seedbed reward, or leave standardise out.",
        )
    return float(result["val_score"]), float(result["val_score_deviation"])


Combine = Literal["mean", "least"]
"""What several scores make."""


class Ensemble:
    """Several reward models, runs of other seeds or better of other pretrained models, that are asked together.

    Where they disagree, none of them knows: there a policy that is trained on one would learn its mistakes (Coste et
    al. 2023, arXiv:2310.02743, §3.2; Eisenstein et al. 2023, arXiv:2312.09244). They are runs and not heads of one
    model: heads that share their blocks share their mistakes.
    """

    def __init__(self, members: Sequence[RewardModel], *, combine: Combine = "mean", caution: float = 0.0):
        """`caution`: how many standard deviations between members are taken off the mean."""
        if not members:
            raise ConfigError("an ensemble needs at least one reward model")
        self.members, self.combine, self.caution = list(members), combine, caution

    @classmethod
    def load(
        cls,
        paths: Sequence[str | Path],
        *,
        device: str | torch.device = "cpu",
        standardise: bool = False,
        combine: Combine = "mean",
        caution: float = 0.0,
    ) -> Self:
        """From runs, checkpoints or model folders."""
        members = [RewardModel.load(path, device=device, standardise=standardise) for path in paths]
        return cls(members, combine=combine, caution=caution)

    def score(self, conversations: Sequence[Conversation]) -> list[float]:
        """What the members make together of each conversation."""
        scores: list[float] = self.together(self.scores(conversations)).tolist()
        return scores

    def scores(self, conversations: Sequence[Conversation]) -> Tensor:
        """Those of each member (R, C)."""
        return torch.tensor([member.score(conversations) for member in self.members])

    def score_tokens(self, encoded: Sequence[Encoded]) -> Tensor:
        """The same (C) of ids and which of them are the reply's."""
        return self.together(torch.stack([member.score_tokens(encoded) for member in self.members]))

    def together(self, scores: Tensor) -> Tensor:
        """The least of the members' scores (R, …), or their mean less what they disagree by times the caution."""
        if self.combine == "least":
            return scores.amin(0)
        return scores.mean(0) - self.caution * scores.std(0, correction=0)
