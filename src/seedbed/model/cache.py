"""The keys and values of everything a model has read, and what short convolutions were given, so that each new token
costs one position and not all of them.

Every row of a batch writes at its own positions: slot s of a row holds position s of that row. Rows of different
lengths therefore share one cache without padding on the left, and a slot that holds something older or meaningless is
never visible before it is overwritten, since a query sees only slots up to its own position.

Shape suffixes: L layers, B rows, G key/value heads, S slots, K head width, T new positions, C convolutions of a layer,
D model width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seedbed.model.config import ModelConfig


class LayerCache:
    """Keys, values and inputs of convolutions of one layer, with the place where this forward pass writes."""

    def __init__(self, keys_BGSK: Tensor, values_BGSK: Tensor, inputs_CBSD: Tensor, positions_BT: Tensor, seen: int):
        self.keys_BGSK = keys_BGSK
        self.values_BGSK = values_BGSK
        self.inputs_CBSD = inputs_CBSD
        self.positions_BT = positions_BT
        self.seen = seen

    def append(self, keys_BGTK: Tensor, values_BGTK: Tensor) -> tuple[Tensor, Tensor]:
        """Stores the new positions and returns all slots seen so far, the new ones included."""
        slots_BGTK = self.positions_BT[:, None, :, None].expand_as(keys_BGTK)
        self.keys_BGSK.scatter_(2, slots_BGTK, keys_BGTK)
        self.values_BGSK.scatter_(2, slots_BGTK, values_BGTK)
        return self.keys_BGSK[:, :, : self.seen], self.values_BGSK[:, :, : self.seen]

    def append_input(self, number: int, x_BTD: Tensor) -> Tensor:
        """Stores what a convolution of the layer is given at the new positions and returns all of its slots."""
        slots_BTD = self.positions_BT[..., None].expand_as(x_BTD)
        return self.inputs_CBSD[number].scatter_(1, slots_BTD, x_BTD)


class KVCache:
    """Room for `rows` sequences of at most `length` positions."""

    def __init__(self, config: ModelConfig, rows: int, length: int, *, device: torch.device, dtype: torch.dtype):
        shape = (config.layers, rows, config.kv_heads, length, config.head_width)
        self.keys_LBGSK = torch.zeros(shape, device=device, dtype=dtype)
        self.values_LBGSK = torch.zeros(shape, device=device, dtype=dtype)
        shape = (config.layers, 0 if config.short_convolution is None else 2, rows, length, config.width)
        self.inputs_LCBSD = torch.zeros(shape, device=device, dtype=dtype)

    def layers(self, positions_BT: Tensor, seen: int) -> list[LayerCache]:
        """The cache of each layer, for a pass that adds `positions_BT`, none of them ≥ `seen`."""
        held = zip(self.keys_LBGSK, self.values_LBGSK, self.inputs_LCBSD, strict=True)
        return [LayerCache(keys, values, inputs, positions_BT, seen) for keys, values, inputs in held]

    def keep_rows(self, rows: Tensor) -> None:
        """Only these rows stay, in this order: finished sequences leave the batch."""
        self.keys_LBGSK = self.keys_LBGSK[:, rows]
        self.values_LBGSK = self.values_LBGSK[:, rows]
        self.inputs_LCBSD = self.inputs_LCBSD[:, :, rows]
