"""What a model under a score head makes of completions.

Shape suffixes: B rows, T positions in a row, C completions, N targets of them, D model width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seedbed.alignment.completions import CompletionBatch
from seedbed.data.batches.batch import IGNORE
from seedbed.model.transformer import Transformer


def target_scores(model: Transformer, batch: CompletionBatch) -> Tensor:
    """The score (N) at each token that is a target, once it has been read; in the order of completions, in fp32."""
    x_BTD = model.hidden(batch.rows.tokens_BT, **batch.rows.where)
    score_N = model.value(x_BTD[_read(batch)]).float()
    return score_N[batch.owner_N.argsort(stable=True)]


def completion_scores(model: Transformer, batch: CompletionBatch) -> Tensor:
    """The score (C) of each completion, at its last token, which ends it; in fp32."""
    last_C = batch.lengths_C.cumsum(0) - 1
    return target_scores(model, batch)[last_C]


def _read(batch: CompletionBatch) -> Tensor:
    """Where (B, T) the targets stand as inputs: a place after those that predict them."""
    counted_BT = batch.rows.targets_BT != IGNORE
    return torch.cat([torch.zeros_like(counted_BT[:, :1]), counted_BT[:, :-1]], dim=1)
