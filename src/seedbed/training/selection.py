"""Active selection: of many candidate rows those are learned from that are worth learning (Mindermann et al. 2022).

RHO-loss, arXiv:2206.07137, §3, eq. 3: a row is worth its loss under the model as it is, less its loss under a reference
model that has learned from held-out text. What is already known has a small first loss; what nobody can learn, noise
and rarities, a large second one. The paper takes one reference for the whole run, and so do we.

What it costs: a step scores `candidates` times as many rows as it learns from, with two forward passes each. With
models of equal size and 4 candidates a row that is 8 forward passes beside 1 forward and 1 backward, about 3.7 times
the time of a step; a reference a tenth as large makes it about 2.5 times.

Shape suffixes: R candidate rows as they are read, S candidate samples, T positions, N target tokens.
"""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cached_property

import torch
from torch import Tensor

from seedbed.data.batches.batch import IGNORE, BatchSource, TokenBatch
from seedbed.model.cross_entropy import cross_entropy
from seedbed.model.transformer import Transformer
from seedbed.runs import sha256_json
from seedbed.training.batch_schedule import BatchSchedule
from seedbed.training.precision import Precision

ROWS_AT_ONCE = 8
"""That are scored together: always as many, so that no score depends on how a step accumulates."""


class Selected:
    """A batch source over another, of which it passes on one row of every `candidates`: those of a step are chosen
    among the candidates of that step.

    So sample i is no longer a function of i alone, but of the step that it belongs to and of the weights before that
    step: nothing to keep, nothing to restore. An epoch is one pass over all candidates.
    """

    def __init__(
        self, source: BatchSource[TokenBatch], reference: Transformer, candidates: int, batch_schedule: BatchSchedule
    ):
        """Chosen by the losses of `reference` and of the model that `score_by` names."""
        self.source, self.reference, self.candidates = source, reference.eval(), candidates
        self.batch_schedule = batch_schedule
        self.learner: Transformer | None = None
        self.precision: Precision | None = None
        self._chosen: tuple[tuple[int, int, int], TokenBatch] | None = None

    def score_by(self, learner: Transformer, precision: Precision) -> None:
        """Chooses from now on by this model, as it is at each step."""
        self.learner, self.precision = learner, precision
        self.reference.to(precision.device)

    @cached_property
    def fingerprint(self) -> str:
        return sha256_json({"selected": self.candidates, "of": self.source.fingerprint})

    @property
    def samples(self) -> int:
        """That are learned from while all candidates pass once."""
        return max(1, self.source.samples // self.candidates)

    def batch(self, first: int, count: int) -> TokenBatch:
        """Samples first … first + count − 1, all of one step; in the order of the candidates."""
        step = int(self.batch_schedule.steps_for(first))
        begin = self.batch_schedule.first(step)
        if first + count > self.batch_schedule.first(step + 1):
            raise ValueError(f"samples {first} to {first + count - 1} are not all of step {step}")
        chosen = self._choose(step)
        pieces = len(chosen.tokens_BT) // self.batch_schedule.size(step)
        return _rows(chosen, torch.arange((first - begin) * pieces, (first - begin + count) * pieces))

    def _choose(self, step: int) -> TokenBatch:
        """The rows of a step; once for all of its micro-batches, since the weights are those before it."""
        assert self.learner is not None  # score_by was called
        moved = sum(weight._version for weight in self.learner.parameters())
        key = (step, id(self.learner), moved)
        if self._chosen is None or self._chosen[0] != key:
            begin, count = self.batch_schedule.first(step), self.batch_schedule.size(step)
            pool = self.source.batch(begin * self.candidates, count * self.candidates)
            worth_S = self.worth(pool, count * self.candidates)
            best = torch.argsort(worth_S, descending=True, stable=True)[:count].sort().values
            pieces = len(pool.tokens_BT) // (count * self.candidates)
            rows = (best[:, None] * pieces + torch.arange(pieces)).flatten()
            self._chosen = (key, _rows(pool, rows))
        return self._chosen[1]

    def worth(self, pool: TokenBatch, samples: int) -> Tensor:
        """The reducible loss of each sample (S) in nats a token; −∞ where there is no target."""
        assert self.learner is not None and self.precision is not None
        training, found = self.learner.training, []
        self.learner.eval()
        for rows in torch.arange(len(pool.tokens_BT)).split(ROWS_AT_ONCE):
            part = _rows(pool, rows).to(self.precision.device)
            with self.precision.compute():
                found.append(_losses(self.learner, part) - _losses(self.reference, part))
        self.learner.train(training)
        loss_S = torch.cat(found).view(samples, -1).sum(1)
        units_S = (pool.targets_BT != IGNORE).view(samples, -1).sum(1)
        return torch.where(units_S > 0, loss_S / units_S, -torch.inf)


@torch.no_grad()
def _losses(model: Transformer, batch: TokenBatch) -> Tensor:
    """Summed over the targets of each row (R), on the CPU, in fp64: differences of sums are small."""
    counted_RT = batch.targets_BT != IGNORE
    x_ND = model.hidden(batch.tokens_BT, **batch.where)[counted_RT]
    losses_RT = torch.zeros(counted_RT.shape, dtype=torch.float64)
    losses_N = cross_entropy(x_ND, model.head_weight, batch.targets_BT[counted_RT], model.scores)
    losses_RT[counted_RT.cpu()] = losses_N.double().cpu()
    return losses_RT.sum(1)


def _rows(batch: TokenBatch, rows: Tensor) -> TokenBatch:
    tensors = {field.name: getattr(batch, field.name) for field in fields(TokenBatch)}
    return replace(batch, **{name: tensor[rows] for name, tensor in tensors.items() if tensor is not None})
