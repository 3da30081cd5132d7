"""A layer with what adapters add to it: x · weightᵀ for all rows together, as without them, then to the rows of each
adapter its own x · downᵀ · upᵀ (Hu et al. 2021, arXiv:2106.09685, eq. 3; many at once: Chen et al. 2023,
arXiv:2310.18547).

Shape suffixes: N rows, W rows that wear an adapter, A adapters and one, R rank, D inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Wearers:
    """Which rows of a pass wear which adapter."""

    rows_W: Tensor
    """int64: of the first adapter, then of the second, …"""

    starts_A: Tensor
    """int64, on the CPU: where the rows of each adapter begin, and at last where they end."""


@dataclass
class Moment:
    """What all layers look at."""

    wearers: Wearers | None = None
    """In the pass that is made just now; None: nobody wears any."""


@dataclass(frozen=True)
class Addition:
    """What an adapter adds to outputs `first`, `first` + 1, … of a layer; the scale is in `up_OR`."""

    adapter: int
    first: int
    down_RD: Tensor
    up_OR: Tensor


class Adapted(nn.Module):
    """A layer, and what adapters add to it."""

    def __init__(self, layer: nn.Module, additions: Sequence[Addition], moment: Moment):
        super().__init__()
        self.layer, self.additions, self.moment = layer, additions, moment

    def forward(self, x_D: Tensor) -> Tensor:
        out_O = self.layer(x_D)
        if self.moment.wearers is not None:
            x_ND = x_D.reshape(-1, x_D.shape[-1]).contiguous()
            self.add(x_ND, out_O.view(-1, out_O.shape[-1]), self.moment.wearers)
        return out_O

    def add(self, x_ND: Tensor, out_NO: Tensor, wearers: Wearers) -> None:
        """To the rows of each adapter its part, in place."""
        starts = wearers.starts_A.tolist()
        for addition in self.additions:
            rows_W = wearers.rows_W[starts[addition.adapter] : starts[addition.adapter + 1]]
            added_WO = F.linear(F.linear(x_ND[rows_W], addition.down_RD), addition.up_OR)
            out_NO[:, addition.first : addition.first + len(addition.up_OR)].index_add_(0, rows_W, added_WO)
