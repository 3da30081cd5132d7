"""The keys and values of everything a model has read, so that each new token costs one position and not all of them.

Every row of a batch writes at its own positions: slot s of a row holds position s of that row. Rows of different
lengths therefore share one cache without padding on the left, and a slot that holds something older or meaningless is
never visible before it is overwritten, since a query sees only slots up to its own position.

Shape suffixes: L layers, B rows, G key/value heads, S slots, K head width, T new positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seedbed.model.config import ModelConfig


class LayerCache:
    """Keys and values of one layer, with the place where this forward pass writes."""

    def __init__(self, keys_BGSK: Tensor, values_BGSK: Tensor, positions_BT: Tensor, seen: int):
        self.keys_BGSK = keys_BGSK
        self.values_BGSK = values_BGSK
        self.positions_BT = positions_BT
        self.seen = seen

    def append(self, keys_BGTK: Tensor, values_BGTK: Tensor) -> tuple[Tensor, Tensor]:
        """Stores the new positions and returns all slots seen so far, the new ones included."""
        slots_BGTK = self.positions_BT[:, None, :, None].expand_as(keys_BGTK)
        self.keys_BGSK.scatter_(2, slots_BGTK, keys_BGTK)
        self.values_BGSK.scatter_(2, slots_BGTK, values_BGTK)
        return self.keys_BGSK[:, :, : self.seen], self.values_BGSK[:, :, : self.seen]


class KVCache:
    """Room for `rows` sequences of at most `length` positions."""

    def __init__(self, config: ModelConfig, rows: int, length: int, *, device: torch.device, dtype: torch.dtype):
        shape = (config.layers, rows, config.kv_heads, length, config.head_width)
        self.keys_LBGSK = torch.zeros(shape, device=device, dtype=dtype)
        self.values_LBGSK = torch.zeros(shape, device=device, dtype=dtype)

    def layers(self, positions_BT: Tensor, seen: int) -> list[LayerCache]:
        """The cache of each layer, for a pass that adds `positions_BT`, none of them ≥ `seen`."""
        pairs = zip(self.keys_LBGSK, self.values_LBGSK, strict=True)
        return [LayerCache(keys, values, positions_BT, seen) for keys, values in pairs]

    def keep_rows(self, rows: Tensor) -> None:
        """Only these rows stay, in this order: finished sequences leave the batch."""
        self.keys_LBGSK = self.keys_LBGSK[:, rows]
        self.values_LBGSK = self.values_LBGSK[:, rows]
