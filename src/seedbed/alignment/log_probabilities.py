"""How likely a model finds completions: the one place where alignment asks for it.

Shape suffixes: B rows, T positions in a row, C completions, N their tokens, D model width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seedbed.alignment.completions import CompletionBatch
from seedbed.data.batches.batch import IGNORE, TokenBatch
from seedbed.model.cross_entropy import cross_entropy
from seedbed.model.transformer import Transformer


def token_log_probabilities(model: Transformer, rows: TokenBatch) -> Tensor:
    """log p of each target (N) given all before it, in nats, in the order of rows and positions; in fp32 at least.

    From the hidden states of targets alone, and never with all logits in memory. Differentiable once.
    """
    x_BTD = model.hidden(rows.tokens_BT, **rows.where)
    counted_BT = rows.targets_BT != IGNORE
    return log_probabilities_after(model, x_BTD[counted_BT], rows.targets_BT[counted_BT])


def log_probabilities_after(model: Transformer, x_ND: Tensor, targets_N: Tensor) -> Tensor:
    """The same (N) from the hidden states that each target follows (N, D)."""
    return -cross_entropy(x_ND, model.head_weight, targets_N, model.scores)


def sum_over_completions(values_N: Tensor, batch: CompletionBatch) -> Tensor:
    """The sum (C) of a number for each token of completions."""
    sums_C = torch.zeros(batch.count, dtype=values_N.dtype, device=values_N.device)
    return sums_C.index_add(0, batch.owner_N, values_N)


def completion_log_probabilities(model: Transformer, batch: CompletionBatch) -> Tensor:
    """log p of each whole completion (C): the sum over its tokens, the one that ends it among them, in fp32."""
    return sum_over_completions(token_log_probabilities(model, batch.rows), batch)
