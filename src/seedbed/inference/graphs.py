"""Passes in which everyone decodes, recorded once and then played back: a GPU is told of one thing to do instead of
hundreds, which for small models takes longer than doing them (CUDA graphs).

A recording has fixed sizes. There is one for each power of two of sequences and of blocks, and what is missing to it
stands in a block that nobody reads.

Shape suffixes: N sequences, each with one new token, W blocks of a sequence, D model width.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from seedbed.model.cache import BLOCK, PagedCache, Places
from seedbed.model.transformer import Transformer

logger = logging.getLogger(__name__)

WARM_UPS = 3
"""Passes before one is recorded: libraries choose their kernels in the first ones."""


@dataclass(frozen=True)
class Recording:
    """A pass of fixed sizes, with the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    tokens_N: Tensor
    places: Places
    x_ND: Tensor


class DecodeGraphs:
    """`model.step` for one new token of each sequence, by recordings."""

    def __init__(self, model: Transformer, cache: PagedCache, spare: int):
        """`spare`: a block that is nobody's."""
        self.model, self.cache, self.spare = model, cache, spare
        self.recordings: dict[tuple[int, int], Recording] = {}
        self._broken = False

    def step(self, tokens_N: Tensor, places: Places) -> Tensor:
        """What the model makes of each token (N, D)."""
        if self._broken:
            return self.model.step(tokens_N, places, self.cache)
        sizes = padded_sizes(*places.tables_QW.shape)
        if sizes not in self.recordings:
            try:
                self.recordings[sizes] = self._record(*sizes)
            except RuntimeError as error:  # an operation that cannot be recorded: all others would fail alike
                logger.warning("decoding without CUDA graphs: %s", str(error).strip().splitlines()[0][:300])
                self._broken = True
                return self.step(tokens_N, places)
        recording = self.recordings[sizes]
        fill(recording.tokens_N, recording.places, tokens_N, places, self.spare)
        recording.graph.replay()
        return recording.x_ND[: len(tokens_N)].clone()

    def _record(self, rows: int, width: int) -> Recording:
        device = self.cache.keys_LMGPKI.device
        tokens_N = torch.zeros(rows, dtype=torch.int64, device=device)
        places = Places.of([[self.spare] * width] * rows, [(0, 1)] * rows, device)
        places = Places(places.tables_QW, places.sequences_N, places.positions_N, seen=width * BLOCK, is_decode=True)
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self.model.step(tokens_N, places, self.cache)
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        shared = next((recording.graph.pool() for recording in self.recordings.values()), None)
        with torch.cuda.graph(graph, pool=shared):
            x_ND = self.model.step(tokens_N, places, self.cache)
        return Recording(graph, tokens_N, places, x_ND)


def padded_sizes(sequences: int, width: int) -> tuple[int, int]:
    """The powers of two that hold them."""
    return 1 << (sequences - 1).bit_length(), 1 << (width - 1).bit_length()


def fill(tokens_N: Tensor, places: Places, new_N: Tensor, where: Places, spare: int) -> None:
    """Writes new tokens and their places into the tensors of a recording; its other sequences stand in the spare
    block."""
    count, width = where.tables_QW.shape
    tokens_N.zero_()
    tokens_N[:count] = new_N
    places.tables_QW.fill_(spare)
    places.tables_QW[:count, :width] = where.tables_QW
    places.positions_N.zero_()
    places.positions_N[:count] = where.positions_N
