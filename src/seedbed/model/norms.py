"""Root-mean-square normalisation (Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4): x / rms(x) · weight, no bias.

Shape suffixes: D the width that is normalised, always last.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seedbed.model.lean import rms_norm


class RMSNorm(nn.Module):
    """Scales each vector to root mean square 1, then by a learned weight per coordinate."""

    def __init__(self, width: int, epsilon: float):
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x_D: Tensor) -> Tensor:
        return rms_norm(x_D, self.weight, self.epsilon)
