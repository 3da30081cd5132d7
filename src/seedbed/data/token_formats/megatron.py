"""Megatron's indexed dataset: `x.bin` holds the tokens of all sequences, `x.idx` their lengths and the documents.

`x.idx`, little-endian (Megatron-LM, megatron/core/datasets/indexed_dataset.py):

    9 bytes    "MMIDIDX", two zeros
    u64        version, 1
    u8         code of the tokens' type
    u64        sequences
    u64        documents + 1
    i32        length[sequences], in tokens
    i64        pointer[sequences], in bytes: the sum of the lengths before
    i64        document[documents + 1]: the first sequence of each, from 0, and at the end the number of sequences

Documents are written as one sequence each.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedbed.data.token_formats.files import Advance, Documents, as_array, copy_tokens, cut, map_existing, short_lengths
from seedbed.data.tokens import TokenStore
from seedbed.errors import DataError

MAGIC = b"MMIDIDX\0\0"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")
"""magic, version, type of the tokens, sequences, documents + 1."""
TYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
"""By code; 6 and 7 are floats, which no token is."""


def write(store: TokenStore, folder: Path, name: str, advance: Advance) -> None:
    """Writes NAME.bin and NAME.idx: u16 where the store has them, i32 otherwise."""
    lengths = short_lengths(store)
    code = 8 if store.dtype.itemsize == 2 else 4
    pointers = (np.cumsum(lengths, dtype=np.int64) - lengths) * store.dtype.itemsize
    with open(folder / f"{name}.bin", "wb") as file:
        copy_tokens(store, 0, store.n_tokens, TYPES[code], file, advance)
    with open(folder / f"{name}.idx", "wb") as file:
        file.write(HEADER.pack(MAGIC, VERSION, code, store.n_docs, store.n_docs + 1))
        for table, dtype in ((lengths, "<i4"), (pointers, "<i8"), (np.arange(store.n_docs + 1), "<i8")):
            file.write(table.astype(dtype).tobytes())


def read(folder: Path, name: str) -> Documents:
    """The documents of NAME.bin and NAME.idx. DataError when the two are not of this format or of one another."""
    path, index_path = folder / f"{name}.bin", folder / f"{name}.idx"
    raw, index = map_existing(path), map_existing(index_path)
    if index[: len(MAGIC)] != MAGIC:
        raise DataError(f"{index_path} is no Megatron index: it begins with {index[: len(MAGIC)]!r}, not {MAGIC!r}")
    if len(index) < HEADER.size:
        raise DataError(f"{index_path} holds {len(index)} bytes but its header alone has {HEADER.size}")
    _, version, code, n_sequences, n_bounds = HEADER.unpack_from(index)
    if version != VERSION:
        raise DataError(f"{index_path} has version {version}; version {VERSION} is read")
    if code not in TYPES:
        known = ", ".join(map(str, TYPES))
        raise DataError(f"{index_path} names the type {code} for its tokens; whole numbers are {known}")
    promised = HEADER.size + 12 * n_sequences + 8 * n_bounds
    if len(index) == promised + n_sequences:
        raise DataError(f"{index_path} has a mode for each sequence: it is of text and pictures, and only text is read")
    if len(index) != promised:
        told = f"{n_sequences:,} sequences and {n_bounds:,} bounds of documents make {promised:,}"
        raise DataError(f"{index_path} holds {len(index):,} bytes but {told}")
    tokens = as_array(raw, TYPES[code], path)
    lengths: NDArray[Any] = np.ndarray(n_sequences, "<i4", index, HEADER.size)
    pointers: NDArray[Any] = np.ndarray(n_sequences, "<i8", index, HEADER.size + 4 * n_sequences)
    bounds: NDArray[Any] = np.ndarray(n_bounds, "<i8", index, HEADER.size + 12 * n_sequences)
    _check_sequences(lengths, pointers, tokens, path, index_path)
    if n_bounds == 0 or bounds[0] != 0 or bounds[-1] != n_sequences or (bounds[1:] < bounds[:-1]).any():
        raise DataError(f"{index_path} has bounds of documents that do not lead from 0 to {n_sequences:,}")
    return Documents((path, index_path), tokens, _spans(bounds, pointers, tokens))


def _check_sequences(
    lengths: NDArray[Any], pointers: NDArray[Any], tokens: NDArray[np.integer], path: Path, index_path: Path
) -> None:
    """Each sequence must begin where the one before it ends, and the last end with the file."""
    end = 0
    for start, stop in cut(0, len(lengths)):
        part = lengths[start:stop].astype(np.int64)
        if part.min() < 0:
            raise DataError(f"{index_path} gives sequence {start + int(part.argmin()):,} {part.min():,} tokens")
        ends = end + np.cumsum(part)
        wrong = pointers[start:stop] != (ends - part) * tokens.itemsize
        if wrong.any():
            first = int(wrong.argmax())
            before = int(ends[first] - part[first]) * tokens.itemsize
            told = f"points sequence {start + first:,} at byte {pointers[start + first]:,}"
            raise DataError(f"{index_path} {told}, but those before it end at {before:,}")
        end = int(ends[-1])
    if end != len(tokens):
        raise DataError(f"{path} holds {len(tokens):,} tokens but its index promises {end:,}")


def _spans(bounds: NDArray[Any], pointers: NDArray[Any], tokens: NDArray[np.integer]) -> Iterator[tuple[int, int]]:
    start = 0
    for first, last in cut(1, len(bounds)):
        sequences = bounds[first:last]
        ends = np.full(len(sequences), len(tokens), dtype=np.int64)
        inside = sequences < len(pointers)
        ends[inside] = pointers[sequences[inside]] // tokens.itemsize
        for end in ends.tolist():
            yield start, end
            start = end
