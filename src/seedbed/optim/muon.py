"""Muon: momentum whose update is orthogonalised (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

The momentum M = UΣVᵀ of a matrix is replaced by about UVᵀ: every direction moves by the same amount. UVᵀ comes from
five Newton–Schulz steps, an odd polynomial in M that draws each singular value towards 1.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

# Steepest at zero: singular values land in about [0.7, 1.2] rather than at 1, which trains as well.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: Tensor, steps: int) -> Tensor:
    """About UVᵀ of a matrix (…, rows, columns) or a stack of them, in the precision it comes in."""
    a, b, c = NEWTON_SCHULZ
    wide = matrix.shape[-2] <= matrix.shape[-1]
    x = matrix if wide else matrix.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


class Muon(Optimizer):
    """Nesterov momentum, orthogonalised, for parameters with two dimensions.

    The update is scaled by √max(1, rows/columns), so that one rate serves matrices of every shape. Matrices of one
    shape are orthogonalised together as a stack. Weight decay is decoupled: each step multiplies by 1 − rate·decay.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        steps: int = 5,
    ):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "steps": steps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure: the loop runs the model
        for group in self.param_groups:
            for matrices in _by_shape(group["params"]):
                updates = torch.stack([self._momentum(matrix, group["momentum"]) for matrix in matrices])
                rows, columns = updates.shape[-2:]
                updates = orthogonalise(updates, group["steps"]) * max(1.0, rows / columns) ** 0.5
                for matrix, update in zip(matrices, updates, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(update, alpha=-group["lr"])

    def _momentum(self, matrix: Tensor, decay: float) -> Tensor:
        state = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(matrix)
        gradient = matrix.grad
        assert gradient is not None  # those without are not stacked
        state["momentum"].lerp_(gradient, 1 - decay)
        return gradient.lerp(state["momentum"], decay)


def _by_shape(parameters: list[Tensor]) -> list[list[Tensor]]:
    stacks: dict[torch.Size, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            stacks.setdefault(parameter.shape, []).append(parameter)
    return list(stacks.values())
