"""Finding the duplicates among the documents of all units, from their signatures.

Exact repeats go first; near-duplicates are looked for among the documents that are left, repeated lines and paragraphs
among those left then. Every step brings equal keys together by an external sort and joins documents in a union-find on
disk, so memory does not grow with the number of documents. Nothing depends on the order of units or documents, except
which of several byte-identical texts is the one that stays: the first.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedbed.data.config import DeduplicationConfig
from seedbed.data.deduplication.clusters import Clusters
from seedbed.data.deduplication.scratch import disk_array
from seedbed.data.deduplication.signatures import Signatures
from seedbed.data.deduplication.signer import settings
from seedbed.data.deduplication.sorting import ITEM, KEY, ORDER, Records, overlapping, records_at_once, repeated
from seedbed.data.deduplication.verdicts import CUTS, DROPS, EXACT, KEPT, NEAR, Verdicts
from seedbed.errors import DataError
from seedbed.runs import writing

NEIGHBOURS = 32
"""A document is compared with so many that follow it among those of one band key, by number of shingles, then hash. Up
to 33 documents are all compared with one another; a hundred thousand of boilerplate take time in proportion."""
OPEN_UNITS = 128
"""Signature files that are mapped at once while pairs are compared."""


def find_duplicates(
    units: Sequence[Path], config: DeduplicationConfig, scratch: Path, memory: int = 256 << 20
) -> Verdicts:
    """Compares the documents of all units, given by their signature files, and writes the verdicts under `scratch`.

    Of a group of duplicates the longest text stays, of equally long ones that with the smallest SHA-256. Sorting takes
    at most about `memory` bytes, and the signatures of one unit or the shingles of two documents come on top.
    Raises CorruptionError for a damaged signature file, DataError for one that was made with other options.
    """
    work = scratch / "work"
    shutil.rmtree(work, ignore_errors=True)  # of a search that was killed
    with writing(work):
        work.mkdir(parents=True)
    try:
        return _Search(list(units), config, scratch, work, memory).run()
    finally:
        shutil.rmtree(work, ignore_errors=True)


class _Search:
    """One search: the columns of all documents on disk, and the steps over them."""

    def __init__(self, units: list[Path], config: DeduplicationConfig, out: Path, work: Path, memory: int):
        self.units, self.config, self.out, self.work, self.memory = units, config, out, work, memory
        self.step = records_at_once(memory)
        self.load = lru_cache(OPEN_UNITS)(lambda unit: Signatures.load(units[unit], verify=False))
        self._collect()

    def run(self) -> Verdicts:
        counts = dict.fromkeys(
            ["exact", "near", "lines", "paragraphs", "characters", "largest_exact", "largest_near"], 0
        )
        if self.config.exact:
            counts["exact"], counts["largest_exact"] = self._drop(self._exact(), EXACT)
        if self.config.near:
            counts["near"], counts["largest_near"] = self._drop(self._near(self.config.near), NEAR)
        if self.config.lines or self.config.paragraphs:
            self._cut()
        verdicts = Verdicts(self.out, self.units, self.document_starts, self.span_starts, counts)
        if self.config.lines or self.config.paragraphs:
            for unit in range(len(self.units)):
                paragraphs = self.load(unit).span_hashes[self.cuts[slice(*self.span_starts[unit : unit + 2])] > 0] & 1
                counts["paragraphs"] += int(paragraphs.sum())
                counts["lines"] += len(paragraphs) - int(paragraphs.sum())
                counts["characters"] += verdicts.of(unit).cut_characters()
        return verdicts

    def _collect(self) -> None:
        """Checks every unit, and gathers the columns that all steps need."""
        sizes = [(0, 0)]
        bands = 0
        for path in self.units:
            signatures = Signatures.load(path)
            if signatures.settings != settings(self.config):
                raise DataError(
                    f"{path} holds signatures for `{signatures.settings}`, not for `{settings(self.config)}`",
                    "Remove it: its unit is then done again.",
                )
            sizes.append((len(signatures), len(signatures.spans)))
            bands = len(signatures.bands)
        self.document_starts, self.span_starts = np.cumsum(np.array(sizes, np.int64), axis=0).T
        self.documents = int(self.document_starts[-1])
        self.drops = disk_array(self.out / DROPS, np.uint8, self.documents)
        self.cuts = disk_array(self.out / CUTS, np.uint8, int(self.span_starts[-1]))
        self.lengths = self._column("lengths", np.uint32)
        self.ties = self._column("ties", np.uint64)
        self.digests = self._column("digests", np.uint64, 2)
        self.sizes = self._column("sizes", np.uint32)
        self.bands = disk_array(self.work / "bands", np.uint64, (bands, self.documents))
        for unit, start in enumerate(self.document_starts[:-1]):
            signatures = self.load(unit)
            place = slice(start, start + len(signatures))
            self.lengths[place] = signatures.lengths
            self.ties[place] = signatures.ties
            self.digests[place] = signatures.digests
            self.sizes[place] = np.diff(signatures.shingle_starts)
            self.bands[:, place] = signatures.bands

    def _column(self, name: str, dtype: type, width: int | None = None) -> NDArray[Any]:
        return disk_array(self.work / name, dtype, (self.documents, width) if width else self.documents)

    def _kept(self) -> Iterator[NDArray[np.int64]]:
        """Numbers of the documents that are still kept, in parts of bounded size."""
        for start in range(0, self.documents, self.step):
            yield start + np.flatnonzero(self.drops[start : start + self.step] == KEPT)

    def _exact(self) -> Clusters:
        """Documents of equal digests, joined."""
        clusters = Clusters(self.work / "exact", self.documents)
        records = (_records(self.digests[kept, 0], self.digests[kept, 1], kept) for kept in self._kept())
        for part in overlapping(repeated(records, self.work, self.memory), 1):
            same = (part[1:, :ITEM] == part[:-1, :ITEM]).all(axis=1)
            clusters.union(_items(part[:-1][same]), _items(part[1:][same]))
        return clusters

    def _near(self, threshold: float) -> Clusters:
        """Documents whose Jaccard similarity reaches the threshold, joined, as far as they share a band."""
        clusters = Clusters(self.work / "near", self.documents)
        for band in self.bands:
            for part in overlapping(repeated(self._band_records(band), self.work, self.memory), NEIGHBOURS):
                for distance in range(1, NEIGHBOURS + 1):
                    same = part[distance:, KEY] == part[:-distance, KEY]
                    if not same.any():
                        break
                    smaller, larger = part[:-distance][same], part[distance:][same]
                    # J is at most the ratio of the sizes, which lead the order.
                    likely = (smaller[:, ORDER] >> 32) / (larger[:, ORDER] >> 32) >= threshold
                    self._join_similar(clusters, _items(smaller[likely]), _items(larger[likely]), threshold)
        return clusters

    def _band_records(self, band: NDArray[np.uint64]) -> Iterator[Records]:
        for kept in self._kept():
            kept = kept[self.sizes[kept] > 0]  # a text without words is like no other
            order = self.sizes[kept].astype(np.uint64) << np.uint64(32) | self.ties[kept] >> np.uint64(32)
            yield _records(band[kept], order, kept)

    def _join_similar(
        self, clusters: Clusters, left: NDArray[np.int64], right: NDArray[np.int64], threshold: float
    ) -> None:
        """Compares pairs by their whole sets of shingles, but for those that other pairs have joined already."""
        apart = clusters.roots(left) != clusters.roots(right)
        left, right = left[apart], right[apart]
        similar = np.array(
            [jaccard(self._shingles(a), self._shingles(b)) >= threshold for a, b in zip(left, right, strict=True)], bool
        )
        clusters.union(left[similar], right[similar])

    def _shingles(self, document: np.int64) -> NDArray[np.uint32]:
        unit = int(np.searchsorted(self.document_starts, document, side="right")) - 1
        return self.load(unit).shingles_of(int(document - self.document_starts[unit]))

    def _drop(self, clusters: Clusters, reason: int) -> tuple[int, int]:
        """Drops all but the best document of each cluster; returns how many, and the size of the largest cluster."""
        best = self._column("best", np.int64)  # at the root of each cluster: its best document, plus 1
        members = self._column("members", np.int64)
        for kept in self._kept():
            roots = clusters.roots(kept)
            order = np.lexsort((kept, self.ties[kept], -self.lengths[kept].astype(np.int64), roots))
            roots, firsts, counts = np.unique(roots[order], return_index=True, return_counts=True)
            members[roots] += counts
            documents = kept[order][firsts]
            rivals = best[roots] - 1  # -1 reads a document that is never taken: those roots have no rival yet
            longer = self.lengths[documents].astype(np.int64) - self.lengths[rivals]
            better = (rivals < 0) | (longer > 0) | ((longer == 0) & (self.ties[documents] < self.ties[rivals]))
            best[roots[better]] = documents[better] + 1
        dropped = 0
        for kept in self._kept():
            worse = kept[best[clusters.roots(kept)] - 1 != kept]
            self.drops[worse] = reason
            dropped += len(worse)
        return dropped, int(members.max()) if dropped else 0

    def _cut(self) -> None:
        """Marks the lines and paragraphs that stand in a document of smaller SHA-256 too."""
        span_starts = self._span_starts()
        last_key, last_owner = None, -1
        for part in repeated(self._span_records(), self.work, self.memory):
            documents = np.searchsorted(span_starts, _items(part), side="right") - 1
            begins = np.concatenate([[True], part[1:, KEY] != part[:-1, KEY]])
            owners = documents[np.maximum.accumulate(np.where(begins, np.arange(len(part)), 0))]
            if part[0, KEY] == last_key:  # the last key of the part before goes on
                owners[part[:, KEY] == last_key] = last_owner
            self.cuts[_items(part)[documents != owners]] = 1
            last_key, last_owner = part[-1, KEY], owners[-1]

    def _span_starts(self) -> NDArray[np.int64]:
        """[documents + 1], the number of the first span of each document."""
        starts = disk_array(self.work / "span_starts", np.int64, self.documents + 1)
        for unit, (document, span) in enumerate(zip(self.document_starts[:-1], self.span_starts[:-1], strict=True)):
            own = self.load(unit).span_starts
            starts[document : document + len(own)] = own.astype(np.int64) + span
        return starts

    def _span_records(self) -> Iterator[Records]:
        for unit, (document, span) in enumerate(zip(self.document_starts[:-1], self.span_starts[:-1], strict=True)):
            signatures = self.load(unit)
            documents = document + np.repeat(
                np.arange(len(signatures)), np.diff(signatures.span_starts).astype(np.int64)
            )
            kept = np.flatnonzero(self.drops[documents] == KEPT)
            yield _records(signatures.span_hashes[kept], self.ties[documents[kept]], span + kept)


def jaccard(left: NDArray[np.uint32], right: NDArray[np.uint32]) -> float:
    """Similarity of two sets, given sorted and not both empty: the share of their union that is in both."""
    together = np.concatenate([left, right])
    together.sort()
    both = int(np.count_nonzero(together[1:] == together[:-1]))
    return both / (len(together) - both)


def _records(keys: NDArray[np.uint64], orders: NDArray[np.uint64], items: NDArray[np.int64]) -> Records:
    return np.stack([keys, orders, items.astype(np.uint64)], axis=1)


def _items(records: Records) -> NDArray[np.int64]:
    return records[:, ITEM].astype(np.int64)
