"""What a request changes in the scores of tokens, by what it said and was told so far, before one of them is chosen.

- repetition penalty (Keskar et al. 2019, arXiv:1909.05858, §4.1): on every token of prompt and continuation
- presence and frequency penalties, as OpenAI's interface has them: on tokens of the continuation
- a bias for tokens by number
- no repeated n-gram (Paulus et al. 2017, arXiv:1705.04304, §2.5): a token that would complete one is impossible

Shape suffixes: V vocabulary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from copy import copy, deepcopy

import torch
from torch import Tensor

from seedbed.inference.config import SamplingConfig


class Adjustments:
    """Of one request; it is told of each token that is made."""

    def __init__(self, config: SamplingConfig, prompt: Sequence[int], vocabulary: int, device: torch.device):
        self.config = config
        self.tokens: list[int] = []
        self.counts_V = torch.zeros(vocabulary, device=device)
        """How often each token was made."""
        self.seen_V = torch.zeros(vocabulary, dtype=torch.bool, device=device)
        """Whether it was made, or told."""
        self.bias_V = torch.zeros(vocabulary, device=device)
        for id, bias in config.logit_bias.items():
            self.bias_V[int(id)] = bias
        self.followers: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)
        """Of each n − 1 tokens that occurred: what came after them."""
        for token in prompt:
            self._meet(token)

    @classmethod
    def of(
        cls, config: SamplingConfig, prompt: Sequence[int], vocabulary: int, device: torch.device
    ) -> Adjustments | None:
        """None when a request changes nothing."""
        return cls(config, prompt, vocabulary, device) if config.adjusts else None

    def fork(self) -> Adjustments:
        """Another one that was told the same."""
        other = copy(self)
        other.tokens, other.followers = deepcopy((self.tokens, self.followers))
        other.counts_V, other.seen_V = self.counts_V.clone(), self.seen_V.clone()
        return other

    def add(self, token: int) -> None:
        """A token was made."""
        self.counts_V[token] += 1
        self._meet(token)

    def __call__(self, logits_V: Tensor) -> Tensor:
        """The scores to choose by, fp32."""
        config, logits_V = self.config, logits_V.float()
        if config.repetition_penalty != 1:
            logits_V = torch.where(self.seen_V, penalised(logits_V, config.repetition_penalty), logits_V)
        logits_V = logits_V - config.frequency_penalty * self.counts_V - config.presence_penalty * (self.counts_V > 0)
        logits_V = logits_V + self.bias_V
        if banned := self._completing():
            logits_V[torch.tensor(list(banned), device=logits_V.device)] = -torch.inf
        return logits_V

    def _meet(self, token: int) -> None:
        self.seen_V[token] = True
        if (size := self.config.no_repeat_ngram) is not None:
            if len(self.tokens) >= size - 1:
                self.followers[self._last(size - 1)].add(token)
            self.tokens.append(token)

    def _completing(self) -> set[int]:
        """Tokens with which an n-gram would occur again."""
        size = self.config.no_repeat_ngram
        return set() if size is None else self.followers.get(self._last(size - 1), set())

    def _last(self, count: int) -> tuple[int, ...]:
        return tuple(self.tokens[len(self.tokens) - count :])


def penalised(logits: Tensor, penalty: float) -> Tensor:
    """Less likely, by whichever side of 0 they are on."""
    return torch.where(logits > 0, logits / penalty, logits * penalty)
