"""Normalisation of vectors, with a learned weight per coordinate.

- RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4): x / rms(x) · weight
- LayerNorm (Ba et al. 2016, arXiv:1607.06450, eq. 4): (x − mean(x)) / std(x) · weight + bias, or without bias

Shape suffixes: D the width that is normalised, always last.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seedbed.model.config import ModelConfig
from seedbed.model.lean import rms_norm


class RMSNorm(nn.Module):
    """Scales each vector to root mean square 1, then by a learned weight per coordinate."""

    def __init__(self, width: int, epsilon: float):
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x_D: Tensor) -> Tensor:
        return rms_norm(x_D, self.weight, self.epsilon)


def build_norm(width: int, config: ModelConfig) -> nn.Module:
    """The norm of the config's kind over vectors of `width`."""
    if config.norm == "rms":
        return RMSNorm(width, config.norm_epsilon)
    return nn.LayerNorm(width, config.norm_epsilon, bias=config.norm_bias)
