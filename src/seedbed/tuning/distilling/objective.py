"""The divergence of a student from its teacher, position by position.

Shape suffixes: B rows, T positions, N target tokens, C those of one chunk, D model width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from seedbed.data.batches.batch import IGNORE, TokenBatch
from seedbed.model.cross_entropy import rows_at_once, summed_cross_entropy
from seedbed.model.transformer import Transformer
from seedbed.training.objective import Loss, Objective, Tally
from seedbed.tuning.distilling.config import DistillationConfig
from seedbed.tuning.distilling.projections import projected


def divergence(student_NV: Tensor, teacher_NV: Tensor, config: DistillationConfig) -> Tensor:
    """T² · D(p‖q) in nats of each position (N), p and q the softmax of the logits of teacher and student over T."""
    q_NV = torch.log_softmax(student_NV / config.temperature, -1)
    p_NV = torch.log_softmax(teacher_NV / config.temperature, -1)
    if config.divergence == "forward":
        found_N = _kl(p_NV, q_NV)
    elif config.divergence == "reverse":
        found_N = _kl(q_NV, p_NV)
    else:
        beta = config.beta
        mixture_NV = torch.logaddexp(p_NV + math.log(beta), q_NV + math.log(1 - beta))
        found_N = beta * _kl(p_NV, mixture_NV) + (1 - beta) * _kl(q_NV, mixture_NV)
    return config.temperature**2 * found_N


def _kl(p_NV: Tensor, q_NV: Tensor) -> Tensor:
    """Σ p (log p − log q), of log-probabilities."""
    return (p_NV.exp() * (p_NV - q_NV)).sum(-1)


class Distillation(Objective[TokenBatch]):
    """share · T² · D + (1 − share) · cross-entropy + hidden · mean squared difference, summed over the target tokens.
    Of those that the student said itself, T² · D in place of the first two: nothing says that they are right.

    The teacher reads each batch as it comes. Logits of both exist for a few rows at a time, and the student's are made
    again in the backward pass.
    """

    def __init__(self, teacher: Transformer, layers: Sequence[tuple[int, int]], config: DistillationConfig):
        """`layers`: blocks of student and teacher whose hidden states are compared."""
        self.teacher, self.config = teacher.eval().requires_grad_(False), config
        self.layers = layers if config.hidden else ()

    def loss(self, model: Transformer, batch: TokenBatch) -> Loss:
        teacher = self.teacher.to(batch.tokens_BT.device)
        counted_BT = batch.targets_BT != IGNORE
        with _outputs(model, [ours for ours, _ in self.layers]) as student_states:
            x_ND = model.hidden(batch.tokens_BT, **batch.where)[counted_BT]
        with torch.no_grad(), _outputs(teacher, [theirs for _, theirs in self.layers]) as teacher_states:
            y_ND = teacher.hidden(batch.tokens_BT, **batch.where)[counted_BT]

        own_N = None if batch.own_B is None else batch.own_B[:, None].expand_as(counted_BT)[counted_BT]
        told = slice(None) if own_N is None else ~own_N
        targets_N = batch.targets_BT[counted_BT]
        text = summed_cross_entropy(x_ND[told], model.head_weight, targets_N[told], model.scores)
        apart = self._divergence(model, teacher, x_ND[told], y_ND[told])
        total = self.config.share * apart + (1 - self.config.share) * text
        # The same names in every batch, also where the student said nothing: processes add them up.
        totals = {"cross_entropy": float(text.detach()), "divergence": float(apart.detach())}
        totals |= {"own_divergence": 0.0, "own_share": 0.0}
        if own_N is not None:
            own = self._divergence(model, teacher, x_ND[own_N], y_ND[own_N])
            total = total + own
            totals |= {"own_divergence": float(own.detach()), "own_share": float(own_N.sum())}
        if self.layers:
            pairs = enumerate(zip(student_states, teacher_states, strict=True))
            parts = [
                (projected(model, number, ours[counted_BT]).float() - theirs[counted_BT].float()).square().mean(-1)
                for number, (ours, theirs) in pairs
            ]
            hidden = torch.stack(parts).mean(0).sum()
            total = total + self.config.hidden * hidden
            totals["hidden"] = float(hidden.detach())
        return Loss(total, len(x_ND), totals)

    def _divergence(self, model: Transformer, teacher: Transformer, x_ND: Tensor, y_ND: Tensor) -> Tensor:
        def of_chunk(x_CD: Tensor, y_CD: Tensor) -> Tensor:
            with torch.no_grad():
                teacher_CV = teacher.logits(y_CD).float()
            return divergence(model.logits(x_CD).float(), teacher_CV, self.config).sum()

        rows = rows_at_once(model.config.vocab_size, model.config.width)
        total = x_ND.sum() * 0  # where no token is a target, too, there is something to differentiate
        for x_CD, y_CD in zip(x_ND.split(rows), y_ND.split(rows), strict=True):
            if torch.is_grad_enabled():
                total = total + checkpoint(of_chunk, x_CD, y_CD, use_reentrant=False)
            else:
                total = total + of_chunk(x_CD, y_CD)
        return total

    def report(self, tally: Tally) -> dict[str, float]:
        """Means: of what the text tells over its tokens, of what the student said over those, of the rest over all."""
        own = int(tally.totals.get("own_share", 0))
        text, counts = tally.units - own, dict.fromkeys(tally.totals, tally.units)
        counts |= {
            "cross_entropy": text,
            "divergence": text,
            "own_divergence": own,
            "own_share": tally.units if own else 0,
        }
        means = {name: total / counts[name] for name, total in tally.totals.items() if counts[name]}
        return {"loss": tally.sum / (tally.units or math.nan)} | means


@contextmanager
def _outputs(model: Transformer, layers: Sequence[int]) -> Iterator[list[Tensor]]:
    """What some blocks put out in the forward pass inside, in the order of `layers`."""
    found: dict[int, Tensor] = {}
    outputs: list[Tensor] = []

    def keeping(layer: int) -> Callable[[object, object, Tensor], None]:
        def keep(_module: object, _inputs: object, output: Tensor) -> None:
            found.setdefault(layer, output)  # what is computed again for the backward pass is the same

        return keep

    hooks = [model.blocks[layer].register_forward_hook(keeping(layer)) for layer in set(layers)]
    try:
        yield outputs
        outputs += [found[layer] for layer in layers]
    finally:
        for hook in hooks:
            hook.remove()
