"""Stochastic gradient descent with momentum (Polyak 1964; Sutskever et al. 2013), its weight decay decoupled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from seedbed.optim.decay import decay


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
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight]["momentum"] = torch.zeros_like(weight)
            momenta = [self.state[weight]["momentum"] for weight in weights]

            torch._foreach_mul_(momenta, group["momentum"])
            torch._foreach_add_(momenta, [weight.grad for weight in weights])
            decay(weights, momenta, group["lr"] * group["weight_decay"], cautious=group["cautious"])
            torch._foreach_add_(weights, momenta, alpha=-group["lr"])
