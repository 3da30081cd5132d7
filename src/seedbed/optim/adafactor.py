"""Adafactor: Adam's second moment kept as one number a row and one a column (Shazeer & Stern 2018, arXiv:1804.04235).

Algorithm 4 with its absolute steps (§8 left out, unless asked for): the rate is what the schedule says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from seedbed.optim.decay import decay

EPSILON, SMALLEST_SIZE = 1e-30, 1e-3
"""ε₁, added to squares, and ε₂, the least size that a relative step goes by."""


class Adafactor(Optimizer):
    """G/√V with V = R·C/mean(R) of the running means R of a matrix's rows and C of its columns of G²; the memory of
    these grows as β₂ = 1 − t^−0.8. An update whose root mean square exceeds 1 is scaled down to it. No momentum.

    With `relative` the rate is multiplied with the root mean square of the parameter itself (§8). A matrix that begins
    at zero, as projections into the residual stream do, then takes long to leave it.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        relative: bool = False,
        cautious: bool = False,
    ):
        options = {"lr": lr, "weight_decay": weight_decay, "relative": relative, "cautious": cautious}
        super().__init__(parameters, options)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure: the loop runs the model
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    update = self._update(weight, weight.grad)
                    size = rms(weight).clamp(min=SMALLEST_SIZE) if group["relative"] else 1.0
                    decay([weight], [update], group["lr"] * group["weight_decay"], cautious=group["cautious"])
                    weight.sub_(update * size, alpha=group["lr"])

    def _update(self, weight: Tensor, gradient: Tensor) -> Tensor:
        state = self.state[weight]
        factored = gradient.ndim >= 2
        if not state:
            state["step"] = torch.zeros(())
            if factored:
                state["rows"] = torch.zeros_like(gradient[..., :1])
                state["columns"] = torch.zeros_like(gradient[..., :1, :])
            else:
                state["squares"] = torch.zeros_like(gradient)
        state["step"] += 1
        forgets = float(state["step"]) ** -0.8
        squares = gradient.square() + EPSILON
        if factored:
            rows = state["rows"].lerp_(squares.mean(dim=-1, keepdim=True), forgets)
            columns = state["columns"].lerp_(squares.mean(dim=-2, keepdim=True), forgets)
            # Not √(R·C/mean R), nor without a bound: the product or share of two small numbers would be zero.
            shares = (rows / rows.mean(dim=-2, keepdim=True)).clamp(min=EPSILON)
            update = gradient * shares.rsqrt() * columns.rsqrt()
        else:
            update = gradient * state["squares"].lerp_(squares, forgets).rsqrt()
        return update / rms(update).clamp(min=1.0)


def rms(tensor: Tensor) -> Tensor:
    """The root of the mean square."""
    return tensor.square().mean().sqrt()
