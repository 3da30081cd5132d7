"""Stochastic gradient descent with momentum (Polyak 1964; Sutskever et al. 2013), its weight decay decoupled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from seedbed.optim.decay import decay
from seedbed.optim.momentum import momenta


class SGD(Optimizer):
    """m ← μm + g, then w ← w − rate·m. torch's own adds weight decay to the gradient, where momentum multiplies it."""

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        cautious: bool = False,
    ):
        options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "cautious": cautious}
        super().__init__(parameters, options)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure: the loop runs the model
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            kept = momenta(self.state, weights)

            torch._foreach_mul_(kept, group["momentum"])
            torch._foreach_add_(kept, [weight.grad for weight in weights])
            decay(weights, kept, group["lr"] * group["weight_decay"], cautious=group["cautious"])
            torch._foreach_add_(weights, kept, alpha=-group["lr"])
