"""How well a model predicts text, in bits per byte: comparable across tokenizers and vocabularies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from seedbed.data.batches.batch import IGNORE, TokenBatch
from seedbed.errors import DataError
from seedbed.model.cross_entropy import rows_at_once
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
    return measure_windows(model, tokenizer, windows, batch=batch)


@torch.inference_mode()
def measure_windows(
    model: Transformer, tokenizer: Tokenizer, windows: Sequence[Sequence[int]], *, batch: int
) -> Likelihood:
    """Over windows of token ids, each of at most the model's context and one more: each token but a window's first is
    predicted. DataError as above."""
    if not windows:
        raise DataError("there is no text to predict: every document is shorter than two tokens")
    token_bytes_V = torch.from_numpy(tokenizer.token_bytes())
    found = Likelihood(0.0, 0, 0)
    for first in range(0, len(windows), batch):
        rows = _rows(windows[first : first + batch])
        targets_N = rows.targets_BT[rows.targets_BT != IGNORE]
        nats = found.nats + _surprise(model, rows.to(model.device))
        size = int(token_bytes_V[targets_N].sum())
        found = Likelihood(nats, found.tokens + len(targets_N), found.bytes + size)
    if not math.isfinite(found.nats) or not found.bytes:
        raise DataError(f"bits per byte cannot be told: {found.nats} nats over {found.bytes} bytes")
    return found


def _surprise(model: Transformer, rows: TokenBatch) -> float:
    """Nats of all targets, a few rows of logits at a time."""
    counted_BT = rows.targets_BT != IGNORE
    x_ND, targets_N = model.hidden(rows.tokens_BT)[counted_BT], rows.targets_BT[counted_BT]
    size = rows_at_once(model.config.vocab_size, model.config.width)
    chunks = zip(x_ND.split(size), targets_N.split(size), strict=True)
    return sum(F.cross_entropy(model.logits(x).float(), targets, reduction="sum").item() for x, targets in chunks)


def _rows(windows: Sequence[Sequence[int]]) -> TokenBatch:
    """Windows side by side; behind a short one stand positions without a target."""
    longest = max(map(len, windows)) - 1
    inputs = [[*window[:-1], *[0] * (longest - len(window) + 1)] for window in windows]
    targets = [[*window[1:], *[IGNORE] * (longest - len(window) + 1)] for window in windows]
    return TokenBatch(torch.tensor(inputs), torch.tensor(targets))
