"""Which documents come into a sample, and which are validation: by hash, so that neither depends on names or order.

Documents that were cut from one record, their parent, stay together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from seedbed.data.boundaries import paragraph_boundary
from seedbed.data.corpus import Split
from seedbed.data.splitmix import mix
from seedbed.errors import DataError

SMALL_VALIDATION = 64 << 10
"""Validation may exceed its fraction up to this many bytes: whole documents are worth more than an exact share."""

PARENT = np.dtype([("first", "<u8"), ("second", "<u8")])
"""16 bytes that name a record: the beginning of the SHA-256 of its text."""


def parent_of(text: str) -> bytes:
    """The name of the record with this text."""
    return hashlib.sha256(text.encode()).digest()[: PARENT.itemsize]


@dataclass
class SplitPlan:
    """Where each parent goes; one that is in neither set is beyond the sample."""

    train: set[bytes]
    val: set[bytes]
    cut: bytes | None = None
    """A parent of which only the beginning is in the sample."""
    cut_bytes: int = 0
    """… this many bytes of it."""
    shared: bytes | None = None
    """A parent whose tail is validation and the rest training, where none whole was small enough."""
    head_bytes: int = 0
    """… after about this many bytes."""
    _seen: dict[bytes, int] = field(default_factory=dict)
    """Bytes of `cut` and `shared` that went by."""

    def side(self, parent: bytes) -> Split | None:
        """Where the documents of a parent go, if they all go there whole."""
        if parent in (self.cut, self.shared):
            return None
        return "val" if parent in self.val else "train" if parent in self.train else None

    def place(self, parent: bytes, text: str) -> Iterator[tuple[Split, str]]:
        """Where a document goes, or its two parts. To be asked of all documents in order, since some are cut."""
        before = self._seen.get(parent, 0)
        if parent in (self.cut, self.shared):
            self._seen[parent] = before + len(text.encode())
        if parent == self.cut:
            text = text[: _within(text, self.cut_bytes - before)]
        if not text.strip():
            return
        if parent == self.shared:
            at = _within(text, self.head_bytes - before)
            if at and text[:at].strip():
                yield "train", text[:at]
            if at < len(text) and text[at:].strip():
                yield "val", text[at:]
        elif parent in self.val:
            yield "val", text
        elif parent in self.train:
            yield "train", text


def _within(text: str, limit: int) -> int:
    """How many characters of a text are within about `limit` bytes, up to a boundary of paragraphs."""
    raw = text.encode()
    if limit >= len(raw):
        return len(text)
    if limit <= 0 or len(text) < 2:
        return 0
    return paragraph_boundary(text, len(raw[:limit].decode("utf-8", errors="ignore")))


def plan_split(
    parents: NDArray[np.void], sizes: NDArray[np.integer], fraction: float, max_bytes: int | None, seed: int
) -> SplitPlan:
    """Chooses parents in the order of a hash keyed by `seed`: those within `max_bytes`, and of them the first ones as
    validation, until they hold `fraction` of the bytes. `parents` (dtype PARENT) and `sizes` in bytes are of documents.

    DataError when there is nothing to split.
    """
    names, inverse = np.unique(parents, return_inverse=True)
    total_N = np.bincount(inverse, weights=sizes, minlength=len(names)).astype(np.int64)
    key = np.frombuffer(hashlib.sha256(f"seedbed {seed}".encode()).digest()[:8], "<u8")[0]
    order = np.lexsort((names["second"], mix(names["first"] ^ key)))
    names, total_N = names[order], total_N[order]
    plan = SplitPlan(set(), set())
    if max_bytes is not None:
        ends = np.cumsum(total_N)
        whole = int(np.searchsorted(ends, max_bytes, side="right"))
        plan.cut_bytes = int(max_bytes - (ends[whole - 1] if whole else 0))
        if whole < len(names) and plan.cut_bytes:
            plan.cut = names[whole].tobytes()
            total_N[whole] = plan.cut_bytes
            whole += 1
        names, total_N = names[:whole], total_N[:whole]
    if not len(names):
        raise DataError("no document is left to split", "Bring more text, or drop fewer of it.")
    total = int(total_N.sum())
    target = fraction * total
    # Whole parents until the fraction is reached; one that goes far beyond is passed by.
    allowance = min(max(2 * target, SMALL_VALIDATION), total / 2)
    taken = 0
    for name, size in zip(names, total_N.tolist(), strict=True):
        if taken >= target:
            break
        if taken + size <= allowance and name.tobytes() != plan.cut:
            plan.val.add(name.tobytes())
            taken += size
    plan.train = {name.tobytes() for name in names} - plan.val
    if not plan.val:
        largest = int(np.argmax(total_N))
        plan.shared = names[largest].tobytes()
        plan.head_bytes = int(total_N[largest]) - max(1, round(target))
    return plan
