"""What a model makes of answers: how likely each token was, how sure it was, what it expected.

Shape suffixes: B rows, T positions, N tokens that were said, D model width, C tokens of a chunk, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seedbed.alignment.log_probabilities import log_probabilities_after
from seedbed.model.cross_entropy import rows_at_once
from seedbed.model.transformer import Transformer
from seedbed.training.parallel.world import World


def shared_rows(count: int, most: int) -> tuple[Tensor, ...]:
    """The numbers of rows, of so many, that this process reads where nothing is learned, at most so many at once; none
    where others read them all."""
    mine = torch.arange(count)[World.here().share(count)]
    return mine.split(most) if len(mine) else ()


class Reading:
    """One pass of a model over answers, of which the head sees only the places where a token was said."""

    def __init__(self, model: Transformer, tokens_BT: Tensor, said_BT: Tensor):
        """Rows begin with a prompt of at least one token and are padded on the right, which nobody sees."""
        self.model, self.said_BT = model, said_BT
        self.x_BTD = model.hidden(tokens_BT)
        # What a position makes is for the token after it.
        self.x_ND = self.x_BTD[:, :-1][said_BT[:, 1:]]
        self.targets_N = tokens_BT[said_BT]

    def logprobs(self, temperature: float = 1.0) -> Tensor:
        """log p of each token (B, T) in nats, fp32 at least, of logits over `temperature`; 0 where none was said.
        Differentiable once."""
        return self.spread(log_probabilities_after(self.model, self.x_ND / temperature, self.targets_N))

    @torch.no_grad()
    def entropy(self, temperature: float = 1.0) -> float:
        """Of the distribution that each token was drawn from, in nats, summed over tokens."""
        head_VD, total = self.model.head_weight, 0.0
        for x_CD in (self.x_ND / temperature).split(rows_at_once(*head_VD.shape)):
            logs_CV = self.model.scores.logits(x_CD, head_VD).log_softmax(-1)
            total -= float((logs_CV.exp() * logs_CV).sum())
        return total

    def values(self) -> Tensor:
        """What the model expects before each token (B, T), by its score head; 0 where none was said."""
        return self.spread(self.model.value(self.x_ND).float())

    def values_after(self) -> Tensor:
        """What it expects after the last token of each row (B)."""
        T = self.said_BT.shape[1]
        last_B = T - 1 - self.said_BT.flip(1).int().argmax(1)
        return self.model.value(self.x_BTD[torch.arange(len(last_B)), last_B]).float()

    def spread(self, numbers_N: Tensor) -> Tensor:
        """Numbers of tokens at their places (B, T)."""
        return numbers_N.new_zeros(self.said_BT.shape).masked_scatter(self.said_BT, numbers_N)
