"""What a step minimises.

Shape suffixes: B rows, T positions, N target tokens, D model width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from torch import Tensor

from seedbed.data.batches.batch import IGNORE, Batch, TokenBatch
from seedbed.errors import ConfigError
from seedbed.model.config import ModelConfig
from seedbed.model.cross_entropy import summed_cross_entropy
from seedbed.model.routing import ROUTER_LOSSES, Documents, load_metrics, router_loss, routings_of
from seedbed.model.transformer import Transformer


@dataclass(frozen=True)
class Loss:
    """A loss that can still be added up: the trainer divides by the units of the whole optimizer step.

    A mean of means would weigh a micro-batch with few targets as much as one with many.
    """

    sum: Tensor
    """Summed over the units, a scalar."""

    units: int
    """What was summed: target tokens, pairs, …"""

    totals: Mapping[str, float] = field(default_factory=dict)
    """Other sums, for `Objective.report`."""

    def nothing(self) -> Loss:
        """The same computation, counting for nothing."""
        return Loss(0 * self.sum, 0, dict.fromkeys(self.totals, 0.0))


@dataclass(frozen=True)
class Tally:
    """Losses added up, as plain numbers."""

    sum: float = 0.0
    units: int = 0
    totals: Mapping[str, float] = field(default_factory=dict)

    def __add__(self, loss: Loss) -> Tally:
        totals = {name: self.totals.get(name, 0.0) + value for name, value in loss.totals.items()}
        return Tally(self.sum + float(loss.sum.detach()), self.units + loss.units, totals)


B_contra = TypeVar("B_contra", bound=Batch, contravariant=True)


class Objective(Protocol[B_contra]):
    """A loss, and how its sums read as metrics."""

    def loss(self, model: Transformer, batch: B_contra) -> Loss:
        """Of one micro-batch, ready for `backward()`."""

    def report(self, tally: Tally) -> dict[str, float]:
        """Metrics of what has been added up; "loss" among them."""

    def judge(self, metrics: Mapping[str, float]) -> float:
        """What says which validation is the best, of its metrics: the lower, the better."""
        return metrics["loss"]


class TargetTokens(Objective[TokenBatch]):
    """Cross-entropy of each target token at the position where the batch asks for it, in nats. In training a mixture of
    experts also minimises its routers' losses, which the metric "loss" leaves out."""

    def __init__(self, token_bytes: Tensor | None = None):
        """`token_bytes` (V): bytes of text that each id stands for; with them the loss is also told in bits per byte,
        which compares across tokenizers."""
        self.token_bytes = token_bytes

    def loss(self, model: Transformer, batch: TokenBatch) -> Loss:
        with routings_of(model) as routings:
            x_BTD = model.hidden(batch.tokens_BT, **batch.where)
        counted_BT = batch.targets_BT != IGNORE
        targets_N = batch.targets_BT[counted_BT]
        total = summed_cross_entropy(x_BTD[counted_BT], model.head_weight, targets_N, model.scores)
        totals = {}
        if self.token_bytes is not None:
            totals["bytes"] = float(self.token_bytes.to(targets_N.device)[targets_N].sum())
        if routings and model.training:
            totals["cross_entropy"] = float(total.detach())
            documents = Documents.of(batch.tokens_BT, batch.segments_BT)
            auxiliary, of_routers = router_loss(model.config, routings, documents, counted_BT.flatten())
            total, totals = total + auxiliary, totals | of_routers
        return Loss(total, len(targets_N), totals)

    def report(self, tally: Tally) -> dict[str, float]:
        units, totals = tally.units or math.nan, tally.totals
        nats = totals.get("cross_entropy", tally.sum)
        metrics = {"loss": nats / units}
        if totals.get("bytes"):
            metrics["bits_per_byte"] = nats / math.log(2) / totals["bytes"]
        metrics |= {name: totals[name] / units for name in ROUTER_LOSSES if name in totals}
        return metrics | load_metrics(totals)


class NextToken(TargetTokens):
    """Each token from those before it; ConfigError for a model that has read it when it is to predict it."""

    def loss(self, model: Transformer, batch: TokenBatch) -> Loss:
        refuse_both_ways(model.config)
        return super().loss(model, batch)


def refuse_both_ways(model: ModelConfig) -> None:
    """ConfigError when a model reads both ways: next to each position it has seen the token that comes there."""
    if not model.causal:
        raise ConfigError(
            "the model reads both ways (model.causal is false): it predicts hidden tokens, never the next one",
            "Take a causal model, or train this one on: seedbed pretrain --objective masked --init MODEL …",
        )
