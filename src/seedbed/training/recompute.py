"""Activations that are computed a second time in the backward pass instead of being kept.

- full: of a block only its input is kept (Chen et al. 2016, arXiv:1604.06174, §4)
- selective: results of matrix products and attention are kept, since they cost most; norms, rotations and gates are
  computed again (Korthikanti et al. 2022, arXiv:2205.05198, §5)

The second time draws the same random numbers as the first, so dropout drops the same, and gradients have the same bits.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from seedbed.model.transformer import Transformer

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "_scaled_mm", "linear")
"""Operators whose results are kept under selective, beside all attention."""


def recompute_blocks(model: Transformer, what: str) -> None:
    """Makes the backward pass of each block recompute "full" or "selective"; names of weights stay as they are."""
    contexts: dict[str, Any] = {}
    if what == "selective":
        contexts["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _policy)
    for block in model.blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False, **contexts)


def _policy(context: Any, operator: torch._ops.OpOverload, *arguments: Any, **keywords: Any) -> CheckpointPolicy:
    name = operator.overloadpacket.__name__
    dear = name in PRODUCTS or "attention" in name
    return CheckpointPolicy.MUST_SAVE if dear else CheckpointPolicy.PREFER_RECOMPUTE
