"""What the formats have in common: tokens in a `.bin`, documents as stretches of them, and suspicion."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from seedbed.data.tokens import TokenStore, map_file
from seedbed.errors import DataError

PIECE = 1 << 20
"""Tokens, or entries of an index, that are held in memory at once."""
LONGEST = 2**31 - 1
"""Tokens of a document whose length is kept in 32 bits."""

Advance = Callable[[int], None]
"""Is told of tokens that were written."""


@dataclass(frozen=True)
class Documents:
    """The documents of one split in another tool's files."""

    files: tuple[Path, ...]
    """Where they come from; the first holds the tokens."""
    tokens: NDArray[np.integer]
    """All tokens, memory-mapped and not yet compared with any vocabulary."""
    spans: Iterable[tuple[int, int]]
    """From where to where in `tokens` each document goes, in order."""


def cut(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """A stretch in parts of at most PIECE."""
    return ((first, min(first + PIECE, stop)) for first in range(start, stop, PIECE))


def copy_tokens(store: TokenStore, start: int, stop: int, dtype: str, file: BinaryIO, advance: Advance) -> None:
    """Writes tokens start … stop − 1 of a store. CorruptionError where they are not what was written."""
    for first, end in cut(start, stop):
        file.write(store.read(first, end).astype(dtype).tobytes())
        advance(end - first)


def short_lengths(store: TokenStore) -> NDArray[np.int32]:
    """Tokens of each document; DataError when 32 bits cannot hold one."""
    lengths = store.lengths
    longest = int(lengths.argmax())
    if lengths[longest] > LONGEST:
        told = f"document {longest:,} of {store.path} has {lengths[longest]:,} tokens"
        raise DataError(f"{told}, but this format's lengths have 32 bits")
    return lengths.astype("<i4")


def map_existing(path: Path) -> mmap.mmap | bytes:
    """A file's bytes without reading them; DataError when there is no such file."""
    if not path.is_file():
        raise DataError(f"{path} is not there", "Give the folder as --tokens; --train and --val name the files in it.")
    return map_file(path)


def as_array(raw: mmap.mmap | bytes, dtype: str, path: Path) -> NDArray[np.integer]:
    """All of a file as numbers; DataError when they do not fill it."""
    width = np.dtype(dtype).itemsize
    if len(raw) % width:
        raise DataError(f"{path} holds {len(raw):,} bytes, which is no whole number of {8 * width}-bit entries")
    return np.ndarray(len(raw) // width, dtype, raw)
