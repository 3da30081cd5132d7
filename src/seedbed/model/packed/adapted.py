"""What adapters add, by a kernel: one call for all of a layer.

Each row's part has the same bits whatever rows stand beside it (`native/low_rank.cpp`).

Shape suffixes: N rows, R rank, D inputs, O outputs, P panels, C additions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seedbed.model.adapters.adapted import Adapted, Addition, Moment, Wearers
from seedbed.model.packed.linears import in_panels
from seedbed.native.library import function

LANES = 16
"""Of the kernel: rows of `down_RD` beside one another."""


class PackedAdapted(Adapted):
    """What Adapted computes."""

    def __init__(self, layer: nn.Module, additions: Sequence[Addition], moment: Moment):
        super().__init__(layer, [], moment)
        self.panels = [(_down_panels(each.down_RD), _up_panels(each.up_OR)) for each in additions]
        self.table_C6 = torch.tensor(
            [
                [each.adapter, each.first, *each.up_OR.shape, down_PDR.data_ptr(), up_PRO.data_ptr()]
                for each, (down_PDR, up_PRO) in zip(additions, self.panels, strict=True)
            ]
        )
        self.function = function("low_rank", "low_rank", "pppppiiit")

    def add(self, x_ND: Tensor, out_NO: Tensor, wearers: Wearers) -> None:
        addresses = (x_ND, out_NO, wearers.rows_W, wearers.starts_A, self.table_C6)
        sizes = (len(self.table_C6), x_ND.shape[1], out_NO.shape[1])
        self.function(*(x.data_ptr() for x in addresses), *sizes, torch.get_num_threads())


def _down_panels(down_RD: Tensor) -> Tensor:
    padded_RD = F.pad(down_RD, (0, 0, 0, -len(down_RD) % LANES))
    return padded_RD.unflatten(0, (-1, LANES)).transpose(1, 2).contiguous()


def _up_panels(up_OR: Tensor) -> Tensor:
    return in_panels(up_OR).transpose(1, 2).contiguous()
