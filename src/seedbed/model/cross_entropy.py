"""Cross-entropy of a large vocabulary without its logits.

The logits of a batch are the largest tensor of a small model. Here they exist for a few rows at a time, as many as
follow from the sizes of the head: their loss is taken, then their gradient, and both are added up before the next rows
come (Wijmans et al. 2024, "Cut your losses", arXiv:2411.09009, §4; Hsu et al. 2024, Liger, arXiv:2410.10989, §3.2).

With logits z, optionally capped to c = s·tanh(z/s) (Gemma Team 2024, arXiv:2408.00118, §2), the loss of target t is
lse(c) − c_t.

Shape suffixes: N positions with a target, C those of one chunk, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seedbed.model.linears.linear import linear

CHUNK = 2**21
"""Logits that exist at once, and as many again for their softmax; as many as the head has weights, if that is more.
Fewer would cost time, since the gradient of the head is read and written once a chunk."""


def rows_at_once(vocabulary: int, width: int) -> int:
    """Rows of logits that make up a chunk."""
    return max(width, CHUNK // vocabulary)


@dataclass(frozen=True)
class Scores:
    """How hidden states become a loss, beside the matrix of the head."""

    softcap: float | None = None
    """s: logits stay within ±s. None: as they are."""

    def logits(self, x_CD: Tensor, weight_VD: Tensor) -> Tensor:
        """Capped, in fp32 at least."""
        logits_CV = linear(x_CD, weight_VD)
        logits_CV = logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32))
        return logits_CV if self.softcap is None else logits_CV.div_(self.softcap).tanh_().mul_(self.softcap)

    def losses(self, logits_CV: Tensor, targets_C: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of each target (C); all log-probabilities (C, V), in the place of the logits; lse(c) (C), by which
        any logit exceeds its log-probability."""
        first_C = logits_CV[:, 0].clone()
        logs_CV = torch.log_softmax(logits_CV, -1, out=logits_CV)
        normaliser_C = first_C - logs_CV[:, 0]
        return -logs_CV.gather(1, targets_C[:, None])[:, 0], logs_CV, normaliser_C

    def gradient(self, logs_CV: Tensor, normaliser_C: Tensor, targets_C: Tensor) -> Tensor:
        """Of the loss by the logits before capping: p − onehot(t), times 1 − (c/s)². It takes the place of the
        log-probabilities."""
        slope_CV = None
        if self.softcap is not None:
            slope_CV = (logs_CV + normaliser_C[:, None]).div_(self.softcap).square_().neg_().add_(1)
        gradient_CV = logs_CV.exp_()
        gradient_CV.scatter_add_(1, targets_C[:, None], gradient_CV.new_full((len(targets_C), 1), -1.0))
        return gradient_CV if slope_CV is None else gradient_CV.mul_(slope_CV)


def summed_cross_entropy(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, scores: Scores | None = None) -> Tensor:
    """The summed loss in nats, a scalar, of hidden states (N, D) under a head (V, D), for ids (N).

    The gradients of both are computed along with the loss, so the logits are made once. Products run in the precision
    of autocast, sums in fp32 or more. Differentiable once.
    """
    # Without this, a validation would compute gradients too: inside a function, gradients always look switched off.
    return _Summed.apply(x_ND, weight_VD, targets_N, scores or Scores(), torch.is_grad_enabled())


def cross_entropy(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, scores: Scores | None = None) -> Tensor:
    """The loss in nats of each target (N), for objectives whose gradient is not the same for all of them.

    The backward pass makes the logits a second time, in chunks again. Differentiable once.
    """
    return _Each.apply(x_ND, weight_VD, targets_N, scores or Scores())


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, scores: Scores, differentiable: bool
    ) -> Tensor:
        x_grad_ND, weight_grad_VD = _gradients(ctx, x_ND, weight_VD, differentiable)
        parts = []
        for part, x_CD, head_VD in _chunks(x_ND, weight_VD):
            logits_CV = scores.logits(x_CD, head_VD)
            losses_C, logs_CV, normaliser_C = scores.losses(logits_CV, targets_N[part])
            parts.append(losses_C)
            if differentiable:
                gradient_CV = scores.gradient(logs_CV, normaliser_C, targets_N[part]).to(x_CD.dtype)
                _spread(gradient_CV, part, x_CD, head_VD, x_grad_ND, weight_grad_VD)
        ctx.save_for_backward(x_grad_ND, weight_grad_VD)
        return (
            torch.cat(parts).sum()
            if parts
            else x_ND.new_zeros((), dtype=torch.promote_types(x_ND.dtype, torch.float32))
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x_grad_ND, weight_grad_VD = ctx.saved_tensors
        if gradient != 1:  # the sum itself is nearly always what is differentiated: then there is nothing to copy
            x_grad_ND, weight_grad_VD = (
                None if part is None else part * gradient for part in (x_grad_ND, weight_grad_VD)
            )
        return x_grad_ND, weight_grad_VD, None, None, None


class _Each(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, scores: Scores) -> Tensor:
        ctx.save_for_backward(x_ND, weight_VD, targets_N)
        ctx.scores, ctx.dtype = scores, _product_type(x_ND)
        parts = [x_ND.new_zeros(0, dtype=torch.promote_types(x_ND.dtype, torch.float32))]
        for part, x_CD, head_VD in _chunks(x_ND, weight_VD):
            parts.append(scores.losses(scores.logits(x_CD, head_VD), targets_N[part])[0])
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_N: Tensor) -> tuple[Tensor | None, ...]:
        x_ND, weight_VD, targets_N = ctx.saved_tensors
        x_grad_ND, weight_grad_VD = _gradients(ctx, x_ND, weight_VD, True)
        with torch.autocast(x_ND.device.type, ctx.dtype, enabled=ctx.dtype != x_ND.dtype):
            for part, x_CD, head_VD in _chunks(x_ND, weight_VD):
                _, logs_CV, normaliser_C = ctx.scores.losses(ctx.scores.logits(x_CD, head_VD), targets_N[part])
                gradient_CV = ctx.scores.gradient(logs_CV, normaliser_C, targets_N[part]) * gradient_N[part, None]
                _spread(gradient_CV.to(x_CD.dtype), part, x_CD, head_VD, x_grad_ND, weight_grad_VD)
        return x_grad_ND, weight_grad_VD, None, None


def _product_type(x_ND: Tensor) -> torch.dtype:
    """What products are made in: autocast's precision, or that of the numbers."""
    kind = x_ND.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x_ND.dtype


def _chunks(x_ND: Tensor, weight_VD: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Where each chunk is, its hidden states (C, D) and the head (V, D), both as they are multiplied."""
    dtype, rows = _product_type(x_ND), rows_at_once(*weight_VD.shape)
    head_VD = weight_VD.to(dtype)
    for first in range(0, len(x_ND), rows):
        part = slice(first, first + rows)
        yield part, x_ND[part].to(dtype), head_VD


def _gradients(ctx: Any, x_ND: Tensor, weight_VD: Tensor, wanted: bool) -> tuple[Tensor | None, Tensor | None]:
    """Room for the gradients that are asked for; that of the head, which adds up, begins at nought."""
    needs_x, needs_weight, *_ = ctx.needs_input_grad
    x_grad_ND = torch.empty_like(x_ND) if wanted and needs_x else None
    return x_grad_ND, torch.zeros_like(weight_VD) if wanted and needs_weight else None


def _spread(
    gradient_CV: Tensor,
    part: slice,
    x_CD: Tensor,
    head_VD: Tensor,
    x_grad_ND: Tensor | None,
    weight_grad_VD: Tensor | None,
) -> None:
    """From the logits of a chunk back to its hidden states and the head."""
    if x_grad_ND is not None:
        x_grad_ND[part] = linear(gradient_CV, head_VD.T)
    if weight_grad_VD is not None and weight_grad_VD.dtype == gradient_CV.dtype:
        weight_grad_VD.addmm_(gradient_CV.T, x_CD)
    elif weight_grad_VD is not None:
        weight_grad_VD += gradient_CV.T @ x_CD
