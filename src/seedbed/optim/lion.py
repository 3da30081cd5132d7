"""Lion: the sign of a momentum (Chen et al. 2023, arXiv:2302.06675, algorithm 2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from seedbed.optim.decay import decay
from seedbed.optim.momentum import momenta


class Lion(Optimizer):
    """Every weight moves by the rate, up or down: u = sign(β₁m + (1 − β₁)g), then m ← β₂m + (1 − β₂)g.

    One number of state a weight, where AdamW has two.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        cautious: bool = False,
    ):
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "cautious": cautious})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure: the loop runs the model
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            gradients, kept = [weight.grad for weight in weights], momenta(self.state, weights)
            beta1, beta2 = group["betas"]

            updates = list(torch._foreach_sign(torch._foreach_lerp(kept, gradients, 1 - beta1)))
            decay(weights, updates, group["lr"] * group["weight_decay"], cautious=group["cautious"])
            torch._foreach_add_(weights, updates, alpha=-group["lr"])
            torch._foreach_lerp_(kept, gradients, 1 - beta2)
