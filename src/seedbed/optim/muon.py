"""Muon: momentum whose update is orthogonalised (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

The momentum M = UΣVᵀ of a matrix is replaced by about UVᵀ: every direction moves by the same amount.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from seedbed.optim.decay import decay
from seedbed.optim.momentum import momenta
from seedbed.optim.orthogonal import orthogonalise, polynomials


class Muon(Optimizer):
    """Nesterov momentum, orthogonalised, for parameters with two dimensions, or more: then the last two are a matrix.

    The update is scaled by √max(1, rows/columns), so that one rate serves matrices of every shape. Matrices of one
    shape are orthogonalised together as a stack. Weight decay is decoupled: each step multiplies by 1 − rate·decay.

    With `neuron_memory` it is NorMuon (Li et al. 2025, arXiv:2510.05491, algorithm 1): orthogonal updates still differ
    in size from row to row, so each row (one neuron) is divided by the root of a running mean of its square. Its length
    as a whole then is what it was, where the paper sets one of its own, so that Muon's rates serve both.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        cautious: bool = False,
        steps: int = 5,
        polynomial: Literal["jordan", "polar_express"] = "jordan",
        neuron_memory: float | None = None,
    ):
        options: dict[str, Any] = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "cautious": cautious}
        options |= {"steps": steps, "polynomial": polynomial, "neuron_memory": neuron_memory}
        super().__init__(parameters, options)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure: the loop runs the model
        for group in self.param_groups:
            for matrices in _by_shape(group["params"]):
                gradients = [
                    matrix.grad for matrix in matrices if matrix.grad is not None
                ]  # all: others are not stacked
                kept = momenta(self.state, matrices)
                torch._foreach_lerp_(kept, gradients, 1 - group["momentum"])
                ahead = torch.stack(torch._foreach_lerp(gradients, kept, group["momentum"]))
                stack = orthogonalise(ahead, polynomials(group["polynomial"], group["steps"]))
                if group["neuron_memory"] is not None:
                    stack = self._evened(matrices, stack, group["neuron_memory"])
                rows, columns = stack.shape[-2:]
                updates = list((stack * max(1.0, rows / columns) ** 0.5).unbind())
                decay(matrices, updates, group["lr"] * group["weight_decay"], cautious=group["cautious"])
                torch._foreach_add_(matrices, updates, alpha=-group["lr"])

    def _evened(self, matrices: list[Tensor], stack: Tensor, memory: float) -> Tensor:
        """With rows of about equal size."""
        squares = stack.square().mean(dim=-1, keepdim=True)
        for matrix, square in zip(matrices, squares, strict=True):
            self.state[matrix].setdefault("neurons", torch.zeros_like(square)).lerp_(square, 1 - memory)
        neurons = torch.stack([self.state[matrix]["neurons"] for matrix in matrices])
        evened = stack / (neurons.sqrt() + 1e-10)
        length, before = (x.norm(dim=(-2, -1), keepdim=True) for x in (evened, stack))
        return evened * (before / (length + 1e-10))


def _by_shape(parameters: list[Tensor]) -> list[list[Tensor]]:
    stacks: dict[torch.Size, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            stacks.setdefault(parameter.shape, []).append(parameter)
    return list(stacks.values())
