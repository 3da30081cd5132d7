"""Elastic weight consolidation: learning something new without unlearning the old (Kirkpatrick et al. 2017).

arXiv:1612.00796, eq. 3: to the loss comes λ/2 · Σ F·(θ − θ*)², where θ* are the weights that training starts from and F
the diagonal of their Fisher information on the old text: each weight is held as firmly as the old text depends on it.

Shape suffixes: N target tokens of a row, D model width, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from seedbed.data.batches.batch import IGNORE, BatchSource, TokenBatch
from seedbed.model.cross_entropy import summed_cross_entropy
from seedbed.model.transformer import Transformer
from seedbed.model.weights import read_headers, read_weights, write_weights
from seedbed.progress import progress
from seedbed.runs import MANIFEST, input_hash, new_folder, open_folder
from seedbed.training.objective import Loss, Objective, Tally
from seedbed.training.parallel.world import World

logger = logging.getLogger(__name__)

FISHER = "fisher"
"""In a run's folder: the Fisher information, a number for each weight."""


class Consolidated(Objective[TokenBatch]):
    """Another objective, and what it costs to move away from where training started.

    The penalty stands beside the mean loss of a token. So each micro-batch bears it once for each of its targets, and
    what the trainer divides by those of the whole step holds it once, however the step is cut.
    """

    def __init__(self, objective: Objective[TokenBatch], strength: float):
        """`strength` is λ: how many tokens of the old text weigh as much as one of the new."""
        self.objective, self.strength = objective, strength
        self.fisher: Mapping[str, Tensor] = {}
        self.start: Mapping[str, Tensor] = {}

    def hold(self, model: Transformer, fisher: Mapping[str, Tensor]) -> None:
        """From now on the model is held to the weights that it has."""
        self.start = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        self.fisher = {name: fisher[name].to(weight.device) for name, weight in self.start.items()}

    def penalty(self, model: Transformer) -> Tensor:
        """λ/2 · Σ F·(θ − θ*)², in nats a token, a scalar."""
        parts = [
            (self.fisher[name] * (weight - self.start[name]).square()).sum()
            for name, weight in model.named_parameters()
        ]
        return self.strength / 2 * torch.stack(parts).sum()

    def loss(self, model: Transformer, batch: TokenBatch) -> Loss:
        loss = self.objective.loss(model, batch)
        if not torch.is_grad_enabled():  # validation tells how well text is predicted
            return loss
        penalty = self.penalty(model)
        totals = {**loss.totals, "penalty": loss.units * float(penalty.detach())}
        return Loss(loss.sum + loss.units * penalty, loss.units, totals)

    def report(self, tally: Tally) -> dict[str, float]:
        """ "loss" is that of the text alone."""
        if "penalty" not in tally.totals or not tally.units:
            return self.objective.report(tally)
        penalty = tally.totals["penalty"]
        return {**self.objective.report(replace(tally, sum=tally.sum - penalty)), "penalty": penalty / tally.units}


def estimate_fisher(model: Transformer, source: BatchSource[TokenBatch], rows: int, seed: int) -> dict[str, Tensor]:
    """The diagonal of the Fisher information of a target token, by the name of each weight, from the first rows.

    Targets are drawn from the model itself: with those of the text it would be another matrix, which vanishes where
    the text is learned by heart (Kunstner et al. 2019, arXiv:1905.12558). Gradients of drawn targets have mean zero
    given what comes before, so those of one row are uncorrelated, and E(Σ g)² = Σ E g²: one backward pass a row.
    """
    weights = dict(model.named_parameters())
    device = model.embedding.weight.device
    squares = [torch.zeros_like(weight) for weight in weights.values()]
    units, training = 0, model.training
    model.eval()
    with progress("Fisher information of the old text", total=rows, unit="rows") as advance:
        for row in range(rows):
            batch = source.batch(row, 1).to(device)
            x_ND = model.hidden(batch.tokens_BT, **batch.where)[batch.targets_BT != IGNORE]
            generator = torch.Generator().manual_seed((seed + row) % 2**63)
            chances_NV = model.logits(x_ND.detach()).detach().float().softmax(-1).cpu()
            drawn_N = torch.multinomial(chances_NV, 1, generator=generator)[:, 0].to(device)
            loss = summed_cross_entropy(x_ND, model.head_weight, drawn_N, model.scores)
            found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True, materialize_grads=True)
            torch._foreach_addcmul_(squares, list(found), list(found))
            units += len(drawn_N)
            advance(1)
    model.train(training)
    torch._foreach_div_(squares, units)
    return dict(zip(weights, squares, strict=True))


@dataclass(frozen=True)
class OldText:
    """What a model was trained on, and how much of it is gone through to see what the model owes to it."""

    source: BatchSource[TokenBatch]
    rows: int
    seed: int
    """Of the targets that are drawn."""
    inputs: Mapping[str, Path]
    """What the Fisher information is made from: the model and the text."""

    def fisher(self, run: Path, model: Transformer) -> dict[str, Tensor]:
        """The Fisher information in a run's folder; estimated and put there when there is none of the same making.

        CorruptionError when a byte of it has changed.
        """
        folder = run / FISHER
        config = {"rows": self.rows, "seed": self.seed, "data": self.source.fingerprint}
        if (folder / MANIFEST).is_file():
            manifest = open_folder(folder, "fisher", verify="all")
            if manifest.config == config and manifest.inputs == {k: input_hash(v) for k, v in self.inputs.items()}:
                return read_weights(read_headers(folder))
        fisher = estimate_fisher(model, self.source, self.rows, self.seed)
        if not World.here().leads:  # it writes, and the others come to the same numbers
            return fisher
        with new_folder(folder, "fisher", inputs=self.inputs, config=config, overwrite=True) as staging:
            write_weights(staging, fisher)
        logger.info("Fisher information of %d rows of the old text: %s", self.rows, folder)
        return fisher
