"""Sorting more records than memory holds, to bring equal keys together.

A record is three unsigned 64-bit numbers: key, order, item. Records are cut by ranges of their key into files, and each
file that fits in memory is sorted there; one that does not is cut again. A single key with more records than fit is cut
by its order, then its item, so that a million equal keys need no more memory than a million different ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from seedbed.runs import writing

Records: TypeAlias = NDArray[np.uint64]
"""[n, 3]: key, order, item."""
KEY, ORDER, ITEM = range(3)
SORT_BYTES = 128
"""Memory that sorting takes for a record of 24 bytes: itself, its index, its sorted copy and its neighbours."""
FILES_BITS = 6
"""Records are cut into 2^6 files at a time, which every system allows to be open."""


def records_at_once(memory: int) -> int:
    """How many records may be sorted within `memory` bytes."""
    return max(memory // SORT_BYTES, 64)


def repeated(chunks: Iterable[Records], scratch: Path, memory: int) -> Iterator[Records]:
    """The records whose key stands more than once, by (key, order, item), in parts of bounded size.

    A key's records come in one part, or in several on end when they are more than memory holds. No two records may be
    equal. Files under `scratch` hold what does not fit in `memory` bytes; raises StorageError when the disk is full.
    """
    limit, held, count = records_at_once(memory), [], 0
    rest = iter(chunks)
    for chunk in rest:
        held.append(chunk)
        count += len(chunk)
        if count > limit:
            yield from _sort_apart(chain(held, rest), KEY, 0, (1 << 64) - 1, limit, scratch)
            return
    if count:
        yield from _sort(np.concatenate(held), KEY)


def overlapping(parts: Iterable[Records], width: int) -> Iterator[Records]:
    """The parts, each with the last `width` records seen before it in front: neighbours are never torn apart."""
    before = np.empty((0, 3), np.uint64)
    for part in parts:
        together = np.concatenate([before, part])
        yield together
        before = together[-width:]


def _sort(records: Records, column: int) -> Iterator[Records]:
    """The records, cut apart from others by `column`, in order; if that is the key, those with a lone key drop out."""
    if column == KEY:
        order = np.argsort(records[:, KEY])
        keys = records[order, KEY]
        twice = np.zeros(len(keys) + 1, bool)
        np.equal(keys[1:], keys[:-1], out=twice[1:-1])
        records = records[order[twice[1:] | twice[:-1]]]
    if len(records):
        yield records[np.lexsort((records[:, ITEM], records[:, ORDER], records[:, KEY]))]


def _sort_apart(
    chunks: Iterable[Records], column: int, low: int, high: int, limit: int, scratch: Path
) -> Iterator[Records]:
    """Cuts records, whose `column` lies in [low, high], into files by ranges of it, and yields them file by file."""
    shift = max((high - low).bit_length() - FILES_BITS, 0)
    with writing(scratch):
        place = tempfile.TemporaryDirectory(dir=scratch, prefix="sorting-")
    with place as folder:
        paths = [Path(folder) / str(number) for number in range(1 << FILES_BITS)]
        with writing(folder), ExitStack() as stack:
            files = [stack.enter_context(open(path, "wb")) for path in paths]
            for chunk in chunks:
                ranges = (chunk[:, column] - np.uint64(low)) >> np.uint64(shift)
                order = np.argsort(ranges, kind="stable")
                ends = np.searchsorted(ranges[order], np.arange(1, len(files), dtype=np.uint64))
                for file, part in zip(files, np.split(chunk[order], ends), strict=True):
                    file.write(part.data)
        for path in paths:
            yield from _sort_file(path, column, limit, scratch)
            path.unlink()


def _sort_file(path: Path, column: int, limit: int, scratch: Path) -> Iterator[Records]:
    count = path.stat().st_size // 24
    if count <= limit:
        if count:
            yield from _sort(np.fromfile(path, np.uint64).reshape(-1, 3), column)
        return
    lows = np.min([part.min(axis=0) for part in _read(path, limit)], axis=0)
    highs = np.max([part.max(axis=0) for part in _read(path, limit)], axis=0)
    column = int(np.argmax(lows < highs))
    yield from _sort_apart(_read(path, limit), column, int(lows[column]), int(highs[column]), limit, scratch)


def _read(path: Path, limit: int) -> Iterator[Records]:
    with open(path, "rb") as file:
        while len(part := np.fromfile(file, np.uint64, 3 * limit)):
            yield part.reshape(-1, 3)
