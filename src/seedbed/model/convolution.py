"""Short convolutions: each position takes up what stood just before it, channel by channel.

y_t = x_t + Σ_i w_i ⊙ x_{t−i} over 1 ≤ i < taps. Pairs and triples of tokens then cost no head of attention that learns
to look one back. Depthwise convolutions in Transformers: So et al. 2021, arXiv:2109.08668 (Primer; on queries, keys and
values); as a shift: Fu et al. 2023, arXiv:2212.14052 (H3); on what attention and feed-forward read: Allen-Zhu 2025,
arXiv:2512.17351 (Canon layers A and C). It begins at w = 0: nothing changes.

Shape suffixes: B batch, T positions, D model width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seedbed.model.cache import PagedLayer
from seedbed.model.config import ModelConfig
from seedbed.model.recipes import remade

ATTENTION, FEEDFORWARD = 0, 1
"""The two convolutions of a block, as the cache counts them."""


class ShortConvolution(nn.Module):
    """Depthwise and causal; it reads no position before the first of its own document."""

    parameter_kind = "vector"
    """A weight a channel, no matrix: it has no directions that Muon could make even."""

    def __init__(self, width: int, taps: int, number: int):
        """`taps` positions are read, the own one among them; `number` is its place in the cache of a layer."""
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(taps - 1, width))
        self.number = number

    def forward(self, x_BTD: Tensor, positions_BT: Tensor | None, cache: PagedLayer | None) -> Tensor:
        """`positions_BT` are those in each document; left out, a row is one. With a cache, its own count."""
        if cache is not None:
            cache.append_input(self.number, x_BTD)
        out_BTD = x_BTD
        for distance, weight_D in enumerate(self.weight, start=1):
            if cache is None:
                earlier_BTD = remade(shifted, x_BTD, distance, positions_BT)
            else:
                earlier_BTD = cache.earlier_input(self.number, distance)
            out_BTD = remade(torch.addcmul, out_BTD, earlier_BTD, weight_D)
        return out_BTD


def shifted(x_BTD: Tensor, distance: int, positions_BT: Tensor | None = None) -> Tensor:
    """Of whole rows, what stands `distance` positions before each; zero where a document has nothing there."""
    earlier_BTD = F.pad(x_BTD, (0, 0, distance, 0))[:, : x_BTD.shape[1]]
    return earlier_BTD if positions_BT is None else earlier_BTD * (positions_BT >= distance)[..., None]


class NoConvolution(nn.Module):
    """Each position as it is."""

    def forward(self, x_BTD: Tensor, positions_BT: Tensor | None, cache: PagedLayer | None) -> Tensor:
        return x_BTD


def build_convolution(config: ModelConfig, number: int) -> ShortConvolution | NoConvolution:
    """What stands before attention (number 0) or feed-forward (1)."""
    taps = config.short_convolution
    return NoConvolution() if taps is None else ShortConvolution(config.width, taps, number)
