"""What became of every document: kept, dropped as a repeat, or kept without some lines and paragraphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from seedbed.data.deduplication.signatures import Signatures

KEPT, EXACT, NEAR = range(3)
REASONS: tuple[None, Literal["exact"], Literal["near"]] = (None, "exact", "near")
DROPS, CUTS = "drops", "cuts"


@dataclass(frozen=True, eq=False)
class UnitVerdict:
    """The verdict on the D documents of one unit."""

    drops: NDArray[np.uint8]
    """[D], KEPT, EXACT or NEAR."""

    cut_starts: NDArray[np.int64]
    """[D + 1], where the cuts of a document begin."""

    cuts: NDArray[np.uint32]
    """[C, 2], first character and the one behind the last, in order of the first; lines may lie in paragraphs."""

    def reason(self, document: int) -> Literal["exact", "near"] | None:
        """Why a document is dropped; None for one that is kept."""
        return REASONS[self.drops[document]]

    def is_whole(self, document: int) -> bool:
        """Whether a document is kept as it is."""
        return self.drops[document] == KEPT and self.cut_starts[document] == self.cut_starts[document + 1]

    def rest(self, document: int, text: str) -> str:
        """The text of a kept document without the lines and paragraphs that stand elsewhere; it may be empty."""
        pieces, position = [], 0
        for begin, end in self.cuts[self.cut_starts[document] : self.cut_starts[document + 1]].tolist():
            pieces.append(text[position:begin])
            position = max(position, end)
        return "".join([*pieces, text[position:]])

    def cut_characters(self) -> int:
        """How many characters the cuts take away, in all documents."""
        # Documents lie on one line, far apart: a cut adds what reaches beyond all cuts that begin before it.
        places = np.repeat(np.arange(len(self.drops), dtype=np.int64) << 32, np.diff(self.cut_starts))
        begins, ends = self.cuts.astype(np.int64).T + places
        reached = np.maximum.accumulate(np.concatenate([[0], ends]))
        return int(np.maximum(ends - np.maximum(begins, reached[:-1]), 0).sum())


@dataclass(frozen=True, eq=False)
class Verdicts:
    """Verdicts on all units, in files of `folder`; small to send to another process."""

    folder: Path

    units: Sequence[Path]
    """The signature files, which hold where lines and paragraphs stand."""

    document_starts: NDArray[np.int64]
    """[units + 1], the number of the first document of each unit."""

    span_starts: NDArray[np.int64]
    """[units + 1], the number of the first line or paragraph of each unit."""

    counts: dict[str, int]
    """Documents dropped as `exact` and `near` repeats, `lines`, `paragraphs` and `characters` removed from others, and
    the documents of the largest group of either kind: `largest_exact`, `largest_near`, 0 when there is none."""

    def of(self, unit: int) -> UnitVerdict:
        """The verdict on one unit. Raises CorruptionError when its signature file cannot be read."""
        drops = self._read(DROPS, np.uint8, self.document_starts, unit)
        cut = np.flatnonzero(self._read(CUTS, np.uint8, self.span_starts, unit))
        if not len(cut):
            return UnitVerdict(drops, np.zeros(len(drops) + 1, np.int64), np.empty((0, 2), np.uint32))
        signatures = Signatures.load(self.units[unit], verify=False)
        documents = np.searchsorted(signatures.span_starts, cut.astype(np.uint64), side="right") - 1
        spans = signatures.spans[cut]
        order = np.lexsort((spans[:, 1], spans[:, 0], documents))
        return UnitVerdict(drops, np.searchsorted(documents, np.arange(len(drops) + 1)), spans[order])

    def _read(self, name: str, dtype: DTypeLike, starts: NDArray[np.int64], unit: int) -> NDArray[Any]:
        count = int(starts[unit + 1] - starts[unit])
        return np.fromfile(self.folder / name, dtype, count, offset=int(starts[unit]) * np.dtype(dtype).itemsize)
