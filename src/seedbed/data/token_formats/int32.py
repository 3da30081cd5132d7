"""Length-prefixed int32: `x.bin` holds a record for each document, `x.index` where each begins; all little-endian.

    x.bin      for each document: i32 n, i32 tokens[n]
    x.index    i64 offset[documents + 1]: bytes before each record, from 0, and at the end the size of x.bin

The index says nothing that the records do not say; it lets a reader go to any document at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedbed.data.token_formats.files import Advance, Documents, as_array, copy_tokens, cut, map_existing, short_lengths
from seedbed.data.tokens import TokenStore
from seedbed.errors import DataError

WIDTH = 4
"""Bytes of a token and of a length."""


def write(store: TokenStore, folder: Path, name: str, advance: Advance) -> None:
    """Writes NAME.bin and NAME.index."""
    lengths = short_lengths(store)
    start = 0
    with open(folder / f"{name}.bin", "wb") as file:
        for length in lengths.tolist():
            file.write(length.to_bytes(WIDTH, "little"))
            copy_tokens(store, start, start + length, "<i4", file, advance)
            start += length
    with open(folder / f"{name}.index", "wb") as file:
        offsets = np.concatenate([[0], np.cumsum(lengths + np.int64(1))]) * WIDTH
        file.write(offsets.astype("<i8").tobytes())


def read(folder: Path, name: str) -> Documents:
    """The documents of NAME.bin and NAME.index. DataError when the two are not of this format or of one another."""
    path, index_path = folder / f"{name}.bin", folder / f"{name}.index"
    raw = map_existing(path)
    offsets = as_array(map_existing(index_path), "<i8", index_path)
    words = as_array(raw, "<i4", path)
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(raw):
        told = f"from {offsets[0]:,} to {offsets[-1]:,}" if len(offsets) else "nowhere"
        raise DataError(f"{index_path} leads {told}, but {path.name} goes from 0 to {len(raw):,}")
    _check_records(offsets, words, path, index_path)
    return Documents((path, index_path), words, _spans(offsets))


def _check_records(offsets: NDArray[Any], words: NDArray[Any], path: Path, index_path: Path) -> None:
    """Each record must fill the bytes that the index gives it."""
    for first, last in cut(0, len(offsets) - 1):
        starts, ends = offsets[first:last], offsets[first + 1 : last + 1]
        wrong = (starts < 0) | (starts >= ends) | (ends > words.nbytes) | (starts % WIDTH != 0)
        if wrong.any():
            one = int(wrong.argmax())
            raise DataError(f"{index_path} puts record {first + one:,} at bytes {starts[one]:,} to {ends[one]:,}")
        lengths = words[starts // WIDTH]
        wrong = lengths != (ends - starts) // WIDTH - 1
        if wrong.any():
            one = int(wrong.argmax())
            told = f"says {lengths[one]:,} tokens, but its index gives it {(ends - starts)[one] // WIDTH - 1:,}"
            raise DataError(f"{path}: record {first + one:,} {told}")


def _spans(offsets: NDArray[Any]) -> Iterator[tuple[int, int]]:
    for first, last in cut(0, len(offsets) - 1):
        bounds = (offsets[first : last + 1] // WIDTH).tolist()
        for start, end in pairwise(bounds):
            yield start + 1, end
