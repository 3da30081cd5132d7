"""A cache of many sequences at once, in blocks of 64 positions.

A sequence is a list of blocks, not necessarily side by side: it grows by one when the last is full, and two sequences
that begin alike share their first ones (Kwon et al. 2023, arXiv:2309.06180). New tokens of all sequences go through the
model as one row, and each reads its own sequence.

Shape suffixes: L layers, M blocks, G key/value heads, H query heads, K head width, S the 64 positions of a block, P its
4 parts, I the 16 positions of a part, C convolutions of a layer, D model width, N new tokens, T those of one sequence,
Q sequences, W blocks of a sequence.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seedbed.model.config import ModelConfig
from seedbed.model.linears.int8 import quantise_rows
from seedbed.model.masks import AttentionMask
from seedbed.model.positions import Angles
from seedbed.native.library import available, function

BLOCK = 64
"""Positions of a block: fewer would cost attention time, more would share less and waste more."""
PART = 16
"""Positions of which the keys lie within one another: as many as the kernel computes with at once."""
KERNEL_WIDTHS = (16, 32, 64, 96, 128)
"""Widths of heads that our kernel is made for."""
ARGUMENTS = "ppppppfpppppppppp" + "iiiiiiiii" + "ft"
"""Of the kernel: in `PagedLayer.attend` line by line."""


@dataclass(frozen=True)
class Places:
    """Where the new tokens of a step stand: tokens of one sequence side by side, in order."""

    tables_QW: Tensor
    """int32: the block of each 64 positions of a sequence; what is beyond its end is never read."""

    sequences_N: Tensor
    """int32: row of the table that a token belongs to."""

    positions_N: Tensor
    """int32: in its sequence."""

    seen: int
    """Positions of the longest sequence, or more: what no device has to be asked for."""

    is_decode: bool
    """Whether each sequence has one new token."""

    @classmethod
    def of(cls, tables: Sequence[Sequence[int]], spans: Sequence[tuple[int, int]], device: torch.device) -> Places:
        """By the blocks of each sequence, the position of its first new token, and how many there are."""
        width = max(map(len, tables))
        tables_QW = torch.tensor([[*table, *[0] * (width - len(table))] for table in tables], dtype=torch.int32)
        sequences = [number for number, (_, count) in enumerate(spans) for _ in range(count)]
        positions = [position for first, count in spans for position in range(first, first + count)]
        return cls(
            tables_QW.to(device),
            torch.tensor(sequences, dtype=torch.int32, device=device),
            torch.tensor(positions, dtype=torch.int32, device=device),
            seen=max(first + count for first, count in spans),
            is_decode=all(count == 1 for _, count in spans),
        )

    def slots(self, distance: int = 0) -> Tensor:
        """Block · 64 + place of what stands so many positions before each token (N), int64; −1 where nothing does."""
        positions_N = self.positions_N.long() - distance
        blocks_N = self.tables_QW[self.sequences_N.long(), positions_N.clamp(min=0) // BLOCK].long()
        return torch.where(positions_N >= 0, blocks_N * BLOCK + positions_N % BLOCK, -1)


def widest_window(config: ModelConfig) -> int | None:
    """How many positions, its own and those before it, a token needs of its sequence; None: all of them."""
    masks = AttentionMask(rows=1, queries=1, keys=config.context, device=torch.device("cpu")).of_layers(config)
    windows = [mask.window for mask in masks if mask.window is not None]
    return max(*windows, config.short_convolution or 1) if len(windows) == len(masks) else None


class PagedCache:
    """Room for `blocks` blocks. Memory is taken when a block is first written."""

    def __init__(
        self,
        config: ModelConfig,
        blocks: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
        stored: torch.dtype | None = None,
    ):
        """For a model that computes in `dtype`. `stored`: what keys and values are stored in, fp16 or int8; left out,
        as they are computed."""
        on_cpu = device.type == "cpu" and dtype == torch.float32
        self.by_kernel = on_cpu and config.head_width in KERNEL_WIDTHS and available()
        """Whether our own kernel attends: then what a token reads has the same bits whatever is read beside it."""
        self.side_by_side = device.type != "cpu"
        """Whether sequences that have one new token each are attended to at once: what a GPU needs. A CPU would read
        what the longest one has for each."""
        stored = stored or dtype
        self.masks = AttentionMask(rows=1, queries=1, keys=config.context, device=device).of_layers(config)
        shape = (config.layers, blocks, config.kv_heads)
        # Scores of 16 positions are one operation, and of a block that is not full only its first parts are read.
        parts = (BLOCK // PART, config.head_width, PART)
        self.keys_LMGPKI = torch.zeros(*shape, *parts, device=device, dtype=stored)
        self.values_LMGSK = torch.zeros(*shape, BLOCK, config.head_width, device=device, dtype=stored)
        scales = BLOCK if stored == torch.int8 else 0
        self.scales_LM2GS = torch.zeros(config.layers, blocks, 2, config.kv_heads, scales, device=device)
        """What a whole number of each position's key and value stands for."""
        convolutions = 0 if config.short_convolution is None else 2
        self.inputs_LCND = torch.zeros(
            config.layers, convolutions, blocks * BLOCK, config.width, device=device, dtype=dtype
        )

    def copy(self, source: int, target: int) -> None:
        """Makes one block what another one is."""
        for held in (self.keys_LMGPKI, self.values_LMGSK, self.scales_LM2GS):
            held[:, target] = held[:, source]
        first, other = source * BLOCK, target * BLOCK
        self.inputs_LCND[:, :, other : other + BLOCK] = self.inputs_LCND[:, :, first : first + BLOCK]

    def layers(self, places: Places) -> list[PagedLayer]:
        """The cache of each layer, for a pass of new tokens."""
        held = zip(self.keys_LMGPKI, self.values_LMGSK, self.scales_LM2GS, self.inputs_LCND, self.masks, strict=True)
        at_once = self.side_by_side and places.is_decode
        return [PagedLayer(*parts, places, self.by_kernel, at_once) for parts in held]


class PagedLayer:
    """Of one layer: takes in keys and values, and attends to what its sequence has."""

    def __init__(
        self,
        keys_MGPKI: Tensor,
        values_MGSK: Tensor,
        scales_M2GS: Tensor,
        inputs_CND: Tensor,
        mask: AttentionMask,
        places: Places,
        by_kernel: bool,
        at_once: bool,
    ):
        self.keys_MGPKI, self.values_MGSK, self.scales_M2GS = keys_MGPKI, values_MGSK, scales_M2GS
        self.inputs_CND = inputs_CND
        self.mask, self.places, self.by_kernel, self.at_once = mask, places, by_kernel, at_once

    def __call__(self, q_1HNK: Tensor, keys_1GNK: Tensor, values_1GNK: Tensor) -> Tensor:
        """What the new tokens read (1, H, N, K)."""
        if self.by_kernel:
            q_1NE, k_1NE, v_1NE = (x.transpose(1, 2).flatten(2) for x in (q_1HNK, keys_1GNK, values_1GNK))
            return self.attend(q_1NE, k_1NE, v_1NE).unflatten(-1, (-1, q_1HNK.shape[-1])).transpose(1, 2)
        q_NHK, k_NGK, v_NGK = (x[0].transpose(0, 1).contiguous() for x in (q_1HNK, keys_1GNK, values_1GNK))
        self._store(k_NGK, v_NGK)
        out_NHK = self._attend_at_once(q_NHK) if self.at_once else self._attend_by_sequence(q_NHK)
        return out_NHK.transpose(0, 1)[None]

    def attend(
        self,
        q_1NE: Tensor,
        k_1NE: Tensor,
        v_1NE: Tensor,
        query_norm: nn.Module | None = None,
        key_norm: nn.Module | None = None,
        angles: Angles | None = None,
    ) -> Tensor:
        """The same by our kernel, of heads beside one another (1, N, E), which it norms and turns on the way."""
        places, mask = self.places, self.mask
        _, shared, _, width = self.values_MGSK.shape
        count, heads = q_1NE.shape[1], q_1NE.shape[2] // width
        out_1NE = q_1NE.new_empty(q_1NE.shape)
        strides_3 = (ctypes.c_int64 * 3)(*(x.stride(1) for x in (q_1NE, k_1NE, v_1NE)))
        norms = [getattr(norm, "weight", None) for norm in (query_norm, key_norm)]
        slopes_H = None if mask.slopes_H is None else torch.tensor(mask.slopes_H)
        sparse, summary = (0, 0) if mask.sparse is None else (mask.sparse.block, mask.sparse.summary)
        function("paged_attention", "paged_attention", ARGUMENTS)(
            *(x.data_ptr() for x in (q_1NE, k_1NE, v_1NE)),
            strides_3,
            *map(_address, norms),
            getattr(query_norm, "epsilon", 0.0),
            *map(_address, angles or (None, None)),
            *(x.data_ptr() for x in (out_1NE, self.keys_MGPKI, self.values_MGSK, self.scales_M2GS)),
            *(x.data_ptr() for x in (places.tables_QW, places.sequences_N, places.positions_N)),
            _address(slopes_H),
            *(count, places.tables_QW.shape[1], heads, shared, width, mask.window or 0, sparse, summary),
            self.keys_MGPKI.element_size(),
            width**-0.5,
            torch.get_num_threads(),
        )
        return out_1NE

    def append_input(self, number: int, x_1ND: Tensor) -> None:
        """Stores what a convolution of the layer is given."""
        self.inputs_CND[number, self.places.slots()] = x_1ND[0]

    def earlier_input(self, number: int, distance: int) -> Tensor:
        """What it was given so many positions before each token (1, N, D); zero where there is nothing."""
        slots_N = self.places.slots(distance)
        return (self.inputs_CND[number, slots_N.clamp(min=0)] * (slots_N >= 0)[:, None])[None]

    def _attend_at_once(self, q_QHK: Tensor) -> Tensor:
        """In PyTorch, of sequences that have one new token each: no size depends on a number that is on the device."""
        keys_QGSK, values_QGSK = self._held(self.places.tables_QW, q_QHK.dtype)
        return self._attend(q_QHK[:, :, None], keys_QGSK, values_QGSK, self.places.positions_N.long()[:, None])[:, :, 0]

    def _attend_by_sequence(self, q_NHK: Tensor) -> Tensor:
        """In PyTorch, one sequence after the other."""
        out_NHK = torch.empty_like(q_NHK)
        sequences_N, counts = torch.unique_consecutive(self.places.sequences_N, return_counts=True)
        first = 0
        for sequence, count in zip(sequences_N.tolist(), counts.tolist(), strict=True):
            here = slice(first, first + count)
            first += count
            positions_T = self.places.positions_N[here].long()
            seen = int(positions_T[-1]) + 1
            tables_1W = self.places.tables_QW[None, sequence, : -(-seen // BLOCK)]
            keys_1GSK, values_1GSK = (x_1GSK[:, :, :seen] for x_1GSK in self._held(tables_1W, q_NHK.dtype))
            q_1HTK = q_NHK[here].transpose(0, 1)[None]
            out_NHK[here] = self._attend(q_1HTK, keys_1GSK, values_1GSK, positions_T[None])[0].transpose(0, 1)
        return out_NHK

    def _store(self, k_NGK: Tensor, v_NGK: Tensor) -> None:
        """New keys and values, as they are stored, in the blocks where they belong."""
        slots_N = self.places.slots()
        blocks_N, within_N = slots_N // BLOCK, slots_N % BLOCK
        stored = self.keys_MGPKI.dtype
        if stored == torch.int8:
            whole_RK, scale_R1 = quantise_rows(torch.stack([k_NGK, v_NGK], dim=1).float().flatten(0, 2))
            self.scales_M2GS[blocks_N, :, :, within_N] = scale_R1.view(len(k_NGK), 2, -1)
            k_NGK, v_NGK = whole_RK.view(len(k_NGK), 2, *k_NGK.shape[1:]).unbind(1)
        elif stored != k_NGK.dtype:
            most = torch.finfo(stored).max
            k_NGK, v_NGK = (x_NGK.clamp(-most, most).to(stored) for x_NGK in (k_NGK, v_NGK))
        self.keys_MGPKI[blocks_N, :, within_N // PART, :, within_N % PART] = k_NGK
        self.values_MGSK[blocks_N, :, within_N] = v_NGK

    def _held(self, tables_QW: Tensor, dtype: torch.dtype) -> Iterator[Tensor]:
        """Keys and values of sequences, block after block (Q, G, S, K), as they are computed with."""
        scales_QW2GS = self.scales_M2GS[tables_QW]
        keys_QWGSK = self.keys_MGPKI[tables_QW].transpose(4, 5).flatten(3, 4)
        for part, x_QWGSK in enumerate((keys_QWGSK, self.values_MGSK[tables_QW])):
            is_whole = x_QWGSK.dtype == torch.int8
            held = x_QWGSK * scales_QW2GS[:, :, part, :, :, None] if is_whole else x_QWGSK
            yield held.to(dtype).transpose(1, 2).flatten(2, 3)

    def _attend(self, q_QHTK: Tensor, keys_QGSK: Tensor, values_QGSK: Tensor, positions_QT: Tensor) -> Tensor:
        mask = self.mask.reading(positions_QT, keys_QGSK.shape[2])
        added_QHTS = mask.bias_BHTS(q_QHTK.dtype)
        visible_Q1TS = mask.visible_BTS()[:, None]
        allowed: Any = visible_Q1TS if added_QHTS is None else torch.where(visible_Q1TS, added_QHTS, -torch.inf)
        return F.scaled_dot_product_attention(q_QHTK, keys_QGSK, values_QGSK, attn_mask=allowed, enable_gqa=True)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
