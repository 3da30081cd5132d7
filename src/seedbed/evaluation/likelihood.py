"""How well a model predicts text, in bits per byte: comparable across tokenizers and vocabularies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from seedbed.data.batches.batch import IGNORE, TokenBatch
from seedbed.errors import DataError
from seedbed.model.transformer import Transformer
from seedbed.tokenizers.tokenizer import Tokenizer
from seedbed.training.objective import NextToken, Tally


@dataclass(frozen=True)
class Likelihood:
    """What was read and how surprising it was."""

    nats: float
    tokens: int
    bytes: int

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes

    @property
    def perplexity(self) -> float:
        """Per token; not comparable across tokenizers."""
        return math.exp(self.nats / self.tokens)


@torch.inference_mode()
def measure_likelihood(
    model: Transformer, tokenizer: Tokenizer, texts: Sequence[str], *, max_bytes: int, batch: int
) -> Likelihood:
    """Over the beginnings of all texts, `max_bytes` in all, in windows of the model's context that do not overlap.

    Each text begins with <s>, as in training; the bytes counted are those of the tokens predicted, special ones none.
    DataError when there is no text, or the model's scores are not numbers.
    """
    context = model.config.context
    windows: list[list[int]] = []
    share = max_bytes // max(1, len(texts))
    for text in texts:
        read = text.encode()[:share].decode(errors="ignore")  # whole characters
        ids = tokenizer.encode(read, bos=tokenizer.bos_id is not None)
        windows += [ids[first : first + context + 1] for first in range(0, len(ids) - 1, context)]
    if not windows:
        raise DataError("there is no text to predict: every document is shorter than two tokens")
    objective = NextToken(torch.from_numpy(tokenizer.token_bytes()))
    device = model.embedding.weight.device
    tally = Tally()
    for first in range(0, len(windows), batch):
        tally = tally + objective.loss(model, _rows(windows[first : first + batch]).to(device))
    if not math.isfinite(tally.sum) or not tally.totals["bytes"]:
        raise DataError(f"bits per byte cannot be told: {tally.sum} nats over {tally.totals['bytes']:.0f} bytes")
    return Likelihood(tally.sum, tally.units, int(tally.totals["bytes"]))


def _rows(windows: list[list[int]]) -> TokenBatch:
    """Windows side by side; behind a short one stand positions without a target."""
    longest = max(map(len, windows)) - 1
    inputs = [window[:-1] + [0] * (longest - len(window) + 1) for window in windows]
    targets = [window[1:] + [IGNORE] * (longest - len(window) + 1) for window in windows]
    return TokenBatch(torch.tensor(inputs), torch.tensor(targets))
