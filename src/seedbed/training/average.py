"""A running mean of the weights of all steps, which is often better than the weights of any (Polyak & Juditsky 1992).

Averaging takes the noise of the last steps away, as a falling rate does (Hägele et al. 2024, arXiv:2405.18392, §4).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from seedbed.training.config import AverageConfig


class WeightAverage:
    """The mean of the weights after each step, each later one weighing 1/decay times the one before; of all equally
    when decay is 1.

    It is free of bias: after n steps the newest weights have the share (1 − d)/(1 − dⁿ), which is 1 after the first.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], config: AverageConfig, steps: int):
        """`steps`: of the whole run."""
        self.decay = config.decay
        self.begins = round(config.after * steps)
        """Steps that are left out."""
        self.weights = weights
        self.tensors = {f"average.{name}": weight.detach().clone() for name, weight in self.weights.items()}
        """By their names in a checkpoint."""

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after this step, counted from 1."""
        n = step - self.begins
        if n >= 1:
            share = 1 / n if self.decay == 1 else (1 - self.decay) / (1 - self.decay**n)
            torch._foreach_lerp_(list(self.tensors.values()), list(self.weights.values()), share)

    @contextlib.contextmanager
    def in_model(self, step: int) -> Iterator[None]:
        """The model has the average after this step, if there is one yet; afterwards its own weights again."""
        self.exchange(step)
        try:
            yield
        finally:
            self.exchange(step)

    @torch.no_grad()
    def exchange(self, step: int) -> None:
        """The weights of the model become the average and the other way round, one tensor after the other."""
        if step > self.begins:
            for weight, average in zip(self.weights.values(), self.tensors.values(), strict=True):
                _swap(weight, average)


def _swap(one: Tensor, other: Tensor) -> None:
    kept = one.clone()
    one.copy_(other)
    other.copy_(kept)
