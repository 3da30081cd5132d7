"""How well a model predicts text, in bits per byte: comparable across tokenizers and vocabularies.

Shape suffixes: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from seedbed.data.batch import IGNORE
from seedbed.model.transformer import Transformer
from seedbed.tokenizers.tokenizer import Tokenizer


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
    model: Transformer, tokenizer: Tokenizer, texts: Iterable[str], *, max_bytes: int, batch: int
) -> Likelihood:
    """Over the first `max_bytes` of the texts, each in windows of the model's context that do not overlap.

    Each text begins with <s>, as in training; the bytes counted are those of the tokens predicted, special ones none.
    """
    context = model.config.context
    windows: list[list[int]] = []
    left = max_bytes
    for text in texts:
        read = text.encode()[:left].decode(errors="ignore")  # whole characters
        ids = tokenizer.encode(read, bos=tokenizer.bos_id is not None)
        windows += [ids[first : first + context + 1] for first in range(0, len(ids) - 1, context)]
        left -= len(text.encode())
        if left <= 0:
            break
    token_bytes = torch.from_numpy(tokenizer.token_bytes())
    nats, tokens, counted = 0.0, 0, 0
    for first in range(0, len(windows), batch):
        targets_BT = _targets(windows[first : first + batch])
        inputs_BT = _inputs(windows[first : first + batch])
        device = model.embedding.weight.device
        logits_BTV = model(inputs_BT.to(device))
        known = targets_BT != IGNORE
        nats += float(F.cross_entropy(logits_BTV.cpu()[known].float(), targets_BT[known], reduction="sum"))
        tokens += int(known.sum())
        counted += int(token_bytes[targets_BT[known]].sum())
    return Likelihood(nats, tokens, counted)


def _inputs(windows: list[list[int]]) -> torch.Tensor:
    longest = max(map(len, windows)) - 1
    return torch.tensor([window[:-1] + [0] * (longest - len(window) + 1) for window in windows])


def _targets(windows: list[list[int]]) -> torch.Tensor:
    longest = max(map(len, windows)) - 1
    return torch.tensor([window[1:] + [IGNORE] * (longest - len(window) + 1) for window in windows])
