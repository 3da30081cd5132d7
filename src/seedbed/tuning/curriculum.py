"""In which order conversations are learned from (Bengio et al. 2009, "Curriculum learning", ICML).

Shape suffixes: B conversations, T positions, N targets, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from seedbed.data.batches.packing import PackedSource
from seedbed.model.cross_entropy import cross_entropy
from seedbed.model.transformer import Transformer
from seedbed.progress import progress
from seedbed.tokenizers.chat import Encoded

Rank = Callable[[Sequence[Encoded]], list[float]]
"""What tells which conversations come first: those of the lowest numbers."""


def lengths(encoded: Sequence[Encoded]) -> list[float]:
    """In tokens."""
    return [float(len(ids)) for ids, _ in encoded]


@torch.inference_mode()
def difficulties(model: Transformer, encoded: Sequence[Encoded]) -> list[float]:
    """The mean loss of each conversation's targets, in nats, each read by itself."""
    found = []
    model.eval()
    with progress("how hard conversations are", total=len(encoded), unit="conversations") as advance:
        for ids, mask in encoded:
            batch = PackedSource([(ids, mask)], len(ids), 0, 0).batch(0, 1).to(model.device)
            x_ND = model.hidden(batch.tokens_BT)[batch.targets_BT >= 0]
            targets_N = batch.targets_BT[batch.targets_BT >= 0]
            found.append(float(cross_entropy(x_ND, model.head_weight, targets_N, model.scores).mean()))
            advance(1)
    return found
