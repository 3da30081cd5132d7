"""Who may look at whom: one rule, read by every way of computing attention.

- causal order: a query reads itself and what came before (Vaswani et al. 2017, arXiv:1706.03762, §3.2.3)
- both ways: every position reads every other (Devlin et al. 2018, arXiv:1810.04805), for masked language models
- prefix: the first positions of a row are read by all of it, the rest is causal (Raffel et al. 2019,
  arXiv:1910.10683, §3.2.1)
- documents: rows packed with several texts that do not see each other; segment −1 is padding, which neither reads nor
  is read
- sliding window: a query reads `window` positions, itself among them (Mistral: Jiang et al. 2023, arXiv:2310.06825, §2)
- block-sparse: the "fixed" pattern of the Sparse Transformer (Child et al. 2019, arXiv:1904.10509, §4.3, both of its
  index sets in one head): a query reads its own block and the last positions of every other
- ALiBi: not who is read but how much; each head takes off what is far away, by its own slope (Press et al. 2022,
  arXiv:2108.12409, §3)

All of them compose: visible is what every rule allows, but that a prefix lifts causal order.

Shape suffixes: B rows, T query positions, S key positions, H query heads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seedbed.model.config import ModelConfig


@dataclass(frozen=True)
class BlockSparse:
    """Every position reads its own block, and of every other block the last positions, its summary."""

    block: int
    """Positions of a block: l in the paper."""

    summary: int
    """How many at a block's end are read from everywhere: c in the paper."""


@dataclass(frozen=True, eq=False)
class AttentionMask:
    """Who may look at whom in one forward pass, or in the layers of one kind of it."""

    rows: int
    queries: int
    keys: int
    """Without a cache as many as queries: query t stands where key t does."""

    device: torch.device
    causal: bool = True
    """False: both ways."""

    window: int | None = None
    """Of the keys no further than window − 1 away are read."""

    sparse: BlockSparse | None = None

    slopes_H: tuple[float, ...] | None = None
    """ALiBi: a head's score of a key at distance d loses slope · d."""

    prefix_B: Tensor | None = None
    """How many first positions of each row are read by all of it."""

    segments_BT: Tensor | None = None
    """Number of the document that a position belongs to, the positions of a document side by side; −1: padding."""

    positions_BT: Tensor | None = None
    """Where each position stands in its document; left out, a row is one document."""

    slots_BT: Tensor | None = None
    """Slots of a cache where the queries stand; slot s holds position s of its row. Left out: there is no cache."""

    def reading(self, positions_BT: Tensor, seen: int) -> AttentionMask:
        """The same for new positions that read a cache of `seen` slots."""
        rows, queries = positions_BT.shape
        return replace(self, rows=rows, queries=queries, keys=seen, slots_BT=positions_BT)

    def of_layers(self, config: ModelConfig) -> list[AttentionMask]:
        """What each layer of an architecture may see of it; one object for all layers that see the same."""
        slopes_H = alibi_slopes(config.heads) if config.positions == "alibi" else None
        all_keys = replace(self, causal=config.causal, slopes_H=slopes_H)
        kinds = {"L": all_keys, "S": all_keys, "B": all_keys}
        # What is too wide to hide anything is left out, so that it costs nothing.
        if config.window is not None and config.window < self.keys:
            kinds["S"] = replace(all_keys, window=config.window)
        if config.sparse_block is not None and config.sparse_block < self.keys:
            kinds["B"] = replace(all_keys, sparse=BlockSparse(config.sparse_block, config.sparse_summary))
        return [kinds[kind] for kind in config.layer_kinds]

    def place(self, b: Tensor, t: Tensor) -> Tensor:
        """Index of the key that stands where query t of row b does."""
        return t if self.slots_BT is None else self.slots_BT[b, t]

    def sees(self, b: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Whether query t of row b may read key s, for indices of any shapes that broadcast."""
        ahead = s - self.place(b, t)
        visible = ahead <= 0 if self.causal else ahead == ahead
        if self.prefix_B is not None:
            visible = visible | (s < self.prefix_B[b])
        if self.window is not None:
            visible = visible & (ahead.abs() < self.window)
        if self.sparse is not None:
            visible = visible & self._shares_block(b, t, s, self.sparse)
        if self.segments_BT is not None:
            theirs = self.segments_BT[b, s]
            visible = visible & (self.segments_BT[b, t] == theirs) & (theirs >= 0)
        return visible

    def _shares_block(self, b: Tensor, t: Tensor, s: Tensor, sparse: BlockSparse) -> Tensor:
        # Blocks are counted in a document, not in its row: packed, it reads what it would read alone.
        packed = self.positions_BT if self.slots_BT is None else None
        own, other = (self.place(b, t), s) if packed is None else (packed[b, t], packed[b, s])
        summary = other % sparse.block >= sparse.block - sparse.summary
        return (own // sparse.block == other // sparse.block) | summary

    @property
    def is_plain(self) -> bool:
        """Whole rows, in causal order or both ways: what every kernel knows without a mask."""
        hides = (self.prefix_B, self.segments_BT, self.slots_BT, self.window, self.sparse, self.slopes_H)
        return all(part is None for part in hides)

    @property
    def differs_by_row(self) -> bool:
        """Whether rows see differently."""
        by_row = (self.prefix_B, self.segments_BT, self.slots_BT, self.positions_BT if self.sparse else None)
        return any(part is not None for part in by_row)

    def visible_BTS(self) -> Tensor:
        """True where query t may read key s; of one row when all see the same."""
        rows = self.rows if self.differs_by_row else 1
        return self.sees(*self._indices(rows)).expand(rows, self.queries, self.keys)

    def bias_BHTS(self, dtype: torch.dtype) -> Tensor | None:
        """What ALiBi adds to the scores; None without it. Of one row when all stand at the same places."""
        if self.slopes_H is None:
            return None
        b, t, s = self._indices(1 if self.slots_BT is None else self.rows)
        exact = torch.float64 if dtype is torch.float64 else torch.float32
        slopes_H11 = torch.tensor(self.slopes_H, dtype=exact, device=self.device)[:, None, None]
        distance_BTS = (s - self.place(b, t)).abs().to(exact)
        return (-slopes_H11 * distance_BTS[:, None]).to(dtype)

    def _indices(self, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of rows, queries and keys, to broadcast as BTS."""
        b, t, s = (torch.arange(size, device=self.device) for size in (rows, self.queries, self.keys))
        return b[:, None, None], t[None, :, None], s[None, None, :]


def alibi_slopes(heads: int) -> tuple[float, ...]:
    """Of each head: 2^(−8/n), 2^(−16/n), … for n heads; where n is no power of two, those of the power below and then
    every other one of the power above (as in the paper's code)."""
    power = 1 << heads.bit_length() - 1
    slopes = [2.0 ** (-8 * number / power) for number in range(1, power + 1)]
    between = [2.0 ** (-4 * number / power) for number in range(1, 2 * power, 2)]
    return tuple((slopes + between)[:heads])
