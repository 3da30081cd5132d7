"""Several sources mixed, in proportions that are exact in every block of samples and may change with the step.

A block of BLOCK samples holds of each source its share, rounded down or up, in an order that a keyed permutation
chooses. What rounding leaves goes round by systematic sampling (Madow 1949), so that over CYCLE blocks nothing is lost
by it and a budget is met also by a small source. So which source a sample comes from, and which of its samples it is,
is a pure function of its index: nothing to keep, nothing to restore.

Shape suffixes: B rows, T positions in a row, S sources.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from seedbed.data.batches.batch import BatchSource, TokenBatch
from seedbed.data.batches.order import Permutation
from seedbed.errors import ConfigError
from seedbed.runs import sha256_json

BLOCK = 1_000
"""Samples of a block."""

CYCLE = 1_024
"""Blocks after which the rounding is the same again; a power of two."""


@dataclass(frozen=True)
class Phase:
    """From a sample on, another mixture."""

    first: int
    """Its first sample; that of the first phase is 0."""
    weights: tuple[float, ...]
    """One for each source, ≥ 0; only their ratios count."""


class MixtureSource:
    """A batch source that mixes others, whose rows are equally long. Each source's samples come in its own order."""

    def __init__(
        self,
        sources: Sequence[BatchSource[TokenBatch]],
        phases: Sequence[Phase],
        samples: int,
        seed: int,
        names: Sequence[str] | None = None,
    ):
        """`samples` is what counts as an epoch; `names` are those of the sources, numbers from 1 when left out.
        ConfigError when weights or phases make no sense."""
        _check(len(sources), phases)
        self.names = names or [str(number) for number in range(1, len(sources) + 1)]
        self.sources, self.phases, self.samples, self.seed = list(sources), list(phases), samples, seed
        self._quotas = [_Quotas(phase.weights) for phase in phases]
        self._block = lru_cache(maxsize=8)(self._order)
        taken_S = np.zeros(len(sources), dtype=np.int64)
        self._before = [taken_S]
        """Samples of each source before each phase."""
        for number, (phase, following) in enumerate(itertools.pairwise(phases)):
            block, rest = divmod(following.first - phase.first, BLOCK)
            taken_S = taken_S + self._quotas[number].before(block) + self._block(number, block)[1][rest]
            self._before.append(taken_S)

    @cached_property
    def fingerprint(self) -> str:
        parts = [source.fingerprint for source in self.sources]
        phases = [[phase.first, *phase.weights] for phase in self.phases]
        return sha256_json({"mixture": parts, "phases": phases, "seed": self.seed})

    def places(self, first: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of the samples first … first + count − 1: which source each is of, and which of its samples."""
        if first < 0 or count < 1:
            raise IndexError(f"samples are counted from 0 and taken one or more at a time, got {count} from {first}")
        sources, places = [], []
        while count:
            number = bisect_right(self.phases, first, key=lambda phase: phase.first) - 1
            block, at = divmod(first - self.phases[number].first, BLOCK)
            order, counts = self._block(number, block)
            stop = min(BLOCK, at + count)
            if number + 1 < len(self.phases):
                stop = min(stop, at + self.phases[number + 1].first - first)
            chosen = order[at:stop]
            before_S = self._before[number] + self._quotas[number].before(block)
            sources.append(chosen)
            places.append(before_S[chosen] + counts[np.arange(at, stop), chosen])
            first, count = first + stop - at, count - (stop - at)
        return np.concatenate(sources), np.concatenate(places)

    def parts(self, count: int) -> dict[str, tuple[BatchSource[TokenBatch], int]]:
        """By name the sources, and how many of the first `count` samples are of each: its own first ones."""
        counts_S = np.bincount(self.places(0, count)[0], minlength=len(self.sources)).tolist()
        return dict(zip(self.names, zip(self.sources, counts_S, strict=True), strict=True))

    def batch(self, first: int, count: int) -> TokenBatch:
        """Samples first … first + count − 1, in that order."""
        chosen_B, places_B = self.places(first, count)
        parts, order = [], []
        for source in np.unique(chosen_B):
            rows = np.flatnonzero(chosen_B == source)
            parts.append(self.sources[source].batch(int(places_B[rows[0]]), len(rows)))  # a source's samples follow on
            order.append(rows)
        if self._isolates:
            parts = [_isolated(part) for part in parts]
        if any(part.own_B is not None for part in parts):
            parts = [_told_apart(part) for part in parts]
        order_B = torch.from_numpy(np.argsort(np.concatenate(order)))
        names = [field.name for field in fields(TokenBatch) if getattr(parts[0], field.name) is not None]
        return TokenBatch(**{name: torch.cat([getattr(part, name) for part in parts])[order_B] for name in names})

    @cached_property
    def _isolates(self) -> bool:
        """Whether the rows of a source hold several documents; then all batches say which is which."""
        return any(source.batch(0, 1).segments_BT is not None for source in self.sources)

    def _order(self, phase: int, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The sources of a block's samples, and how many of each came in it before each sample."""
        quotas_S = self._quotas[phase].of(block)
        order = np.repeat(np.arange(len(quotas_S)), quotas_S)
        order = order[Permutation(BLOCK, f"{self.seed}/mixture {phase}:{block}")(np.arange(BLOCK))]
        counts = np.zeros((BLOCK + 1, len(quotas_S)), dtype=np.int64)
        np.cumsum(order[:, None] == np.arange(len(quotas_S)), axis=0, out=counts[1:])
        return order, counts


def _check(sources: int, phases: Sequence[Phase]) -> None:
    if not sources or not phases or phases[0].first != 0:
        raise ConfigError("a mixture needs sources, and weights from the first sample on")
    for phase, following in itertools.pairwise(phases):
        if following.first <= phase.first:
            raise ConfigError(f"the phases of a mixture must follow one another, got {phase.first}, {following.first}")
    for phase in phases:
        if len(phase.weights) != sources:
            raise ConfigError(f"a mixture of {sources} sources needs as many weights, got {len(phase.weights)}")
        if not all(0 <= weight < math.inf for weight in phase.weights) or not sum(phase.weights) > 0:
            raise ConfigError(f"weights must be ≥ 0 and not all 0, got {list(phase.weights)}")


class _Quotas:
    """How many samples of each block each source has."""

    def __init__(self, weights: Sequence[float]):
        share_S = np.array(weights) / sum(weights)
        if share_S[share_S > 0].min() < 1 / (BLOCK * CYCLE):
            raise ConfigError(f"a weight is less than {1 / (BLOCK * CYCLE):.1g} of all: leave that source out")
        self._whole_S = np.floor(share_S * BLOCK + 1e-9).astype(np.int64)
        seats = BLOCK - int(self._whole_S.sum())
        # The remainders lie one behind the other on a line as long as there are seats. Points on it, one apart, choose
        # who has a seat. A remainder is less than 1, so it holds one point at most; where the first lies moves through
        # [0, 1) from block to block, in van der Corput's order, which is even at every moment.
        ends_S = np.cumsum(np.maximum(share_S * BLOCK - self._whole_S, 0))
        ends_S *= seats / ends_S[-1] if seats else 1
        bits = CYCLE.bit_length() - 1
        firsts = np.array([int(f"{block:0{bits}b}"[::-1], 2) + 0.5 for block in range(CYCLE)]) / CYCLE
        chosen = np.searchsorted(ends_S, firsts[:, None] + np.arange(seats), side="right")
        self._seats = (chosen[:, :, None] == np.arange(len(weights))).sum(1)
        self._taken = np.concatenate([np.zeros((1, len(weights)), dtype=np.int64), np.cumsum(self._seats, axis=0)])

    def of(self, block: int) -> NDArray[np.int64]:
        return self._whole_S + self._seats[block % CYCLE]

    def before(self, block: int) -> NDArray[np.int64]:
        """Samples of each source in all blocks before."""
        cycles, rest = divmod(block, CYCLE)
        return block * self._whole_S + cycles * self._taken[-1] + self._taken[rest]


def _isolated(batch: TokenBatch) -> TokenBatch:
    """With segments and positions, also where every row is one document."""
    if batch.segments_BT is not None:
        return batch
    B, T = batch.tokens_BT.shape
    return replace(batch, segments_BT=torch.zeros(B, T, dtype=torch.int32), positions_BT=torch.arange(T).expand(B, T))


def _told_apart(batch: TokenBatch) -> TokenBatch:
    """Saying of each row whether the learner said it, also where it said none."""
    return batch if batch.own_B is not None else replace(batch, own_B=torch.zeros(len(batch.tokens_BT)).bool())
