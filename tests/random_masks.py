"""Masks of every kind and mixture, drawn by hypothesis, each with its rule written out for one query and one key.

Shape suffixes: B rows, T query positions, S key positions, H query heads, G key/value heads, K head width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st

from seedbed.model.attention_paths.path import Heads
from seedbed.model.attention_paths.reference import ReferenceAttention
from seedbed.model.masks import AttentionMask, BlockSparse, alibi_slopes

CPU = torch.device("cpu")
GROUPS = ((4, 4), (4, 2), (6, 2), (3, 1))
"""Query heads and key/value heads."""


def causal_attention(rows: int, length: int) -> ReferenceAttention:
    """What a block reads whole rows by."""
    return ReferenceAttention(AttentionMask(rows, length, length, CPU), Heads(1, 1, 1, torch.float64))


@dataclass
class Case:
    """A mask, the heads that it is for, and plain lists of what it was made of."""

    mask: AttentionMask
    heads: Heads
    segments: list[list[int]] | None
    positions: list[list[int]] | None
    prefix: list[int] | None
    slots: list[list[int]] | None

    def visible(self, b: int, t: int, s: int) -> bool:
        """The rules, one after the other, in plain numbers."""
        mask = self.mask
        place = self.slots[b][t] if self.slots else t
        if mask.causal and s > place and not (self.prefix and s < self.prefix[b]):
            return False
        if mask.window and abs(place - s) >= mask.window:
            return False
        if self.segments and not self.segments[b][t] == self.segments[b][s] != -1:
            return False
        if mask.sparse:
            own, other = (self.positions[b][t], self.positions[b][s]) if self.positions else (place, s)
            own_block, (other_block, inside) = own // mask.sparse.block, divmod(other, mask.sparse.block)
            return own_block == other_block or inside + mask.sparse.summary >= mask.sparse.block
        return True

    def bias(self, h: int, b: int, t: int, s: int) -> float:
        place = self.slots[b][t] if self.slots else t
        return -self.mask.slopes_H[h] * abs(place - s) if self.mask.slopes_H else 0.0

    def inputs(self, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
        """Queries, keys and values."""
        generator = torch.Generator().manual_seed(0)
        mask, heads = self.mask, self.heads
        shapes = [(heads.query, mask.queries), (heads.shared, mask.keys), (heads.shared, mask.keys)]
        drawn = (torch.randn(mask.rows, *shape, heads.width, generator=generator) for shape in shapes)
        return [x.to(dtype).requires_grad_() for x in drawn]


@st.composite
def documents(draw: st.DrawFn, length: int) -> tuple[list[int], list[int]]:
    """Segments and positions of a row: documents side by side, and stretches of padding."""
    segments: list[int] = []
    positions: list[int] = []
    number = 0
    while len(segments) < length:
        size = draw(st.integers(1, length - len(segments)))
        is_padding = draw(st.booleans()) and draw(st.booleans())
        segments += [-1 if is_padding else number] * size
        positions += [0] * size if is_padding else range(size)
        number += 1
    return segments, positions


@st.composite
def cases(
    draw: st.DrawFn, *, rules: str = "documents window prefix sparse alibi both cache", longest: int = 12
) -> Case:
    """Any mixture of the named rules."""

    def has(rule: str) -> bool:
        return rule in rules.split() and draw(st.booleans())

    rows, length = draw(st.integers(1, 2)), draw(st.integers(1, longest))
    query, shared = draw(st.sampled_from(GROUPS))
    segments = positions = prefix = slots = None
    queries = length
    if has("cache"):
        queries = draw(st.integers(1, length))
        slots = [draw(st.lists(st.integers(0, length - 1), min_size=queries, max_size=queries)) for _ in range(rows)]
    elif has("documents"):
        segments, positions = map(list, zip(*(draw(documents(length)) for _ in range(rows)), strict=True))
    if has("prefix"):
        prefix = [draw(st.integers(0, length)) for _ in range(rows)]
    block = draw(st.integers(1, 6))
    mask = AttentionMask(
        rows=rows,
        queries=queries,
        keys=length,
        device=CPU,
        causal=not has("both"),
        window=draw(st.integers(1, length)) if has("window") else None,
        sparse=BlockSparse(block, draw(st.integers(1, block))) if has("sparse") else None,
        slopes_H=alibi_slopes(query) if has("alibi") else None,
        prefix_B=None if prefix is None else torch.tensor(prefix),
        segments_BT=None if segments is None else torch.tensor(segments),
        positions_BT=None if positions is None else torch.tensor(positions),
        slots_BT=None if slots is None else torch.tensor(slots),
    )
    return Case(mask, Heads(query, shared, 8, torch.float64), segments, positions, prefix, slots)
