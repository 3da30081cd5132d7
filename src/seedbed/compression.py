"""Files as a stream of bytes, decompressed by the ending of their name, in bounded memory.

Libraries end in silence where a compressed file was cut off, and give gigabytes for a kilobyte that was made to do so.
Here a stream that does not end as its format demands is an error, and no piece is larger than its limit.
"""

from __future__ import annotations

import bz2
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import zstandard

from seedbed.errors import CorruptionError, DataError

PIECE = 1 << 20
"""Bytes read from disk at a time, and about the most that one piece holds."""

ZSTD_STEP = 1 << 12
"""Compressed bytes given to Zstandard at a time. It takes no limit for its output; so few give 128 MiB at most."""

LARGEST_WINDOW = 2**31
"""Bytes that a frame may ask to be kept in memory: what `zstd --long=31` writes."""

STDIN = Path("-")

BOM = b"\xef\xbb\xbf"
"""What some programs put before UTF-8; it is no part of the text."""


def read_pieces(path: Path | str) -> Iterator[bytes]:
    """The content of a file in pieces, decompressed when its name ends in .zst, .gz or .bz2; `-` is standard input.

    Raises CorruptionError where a compressed stream is broken or cut off, DataError when the file cannot be read.
    """
    raw = _raw(Path(path))
    decompress = next((reader for ending, reader in STREAMS.items() if str(path).lower().endswith(ending)), None)
    if decompress is None:
        yield from raw
        return
    try:
        yield from decompress(raw)
    except (zstandard.ZstdError, zlib.error, OSError, ValueError) as error:
        # The libraries wrap their reasons: "zstd decompressor error: Data corruption detected".
        reason = re.sub("^.*: ", "", str(error))
        problem = f"{path}: the compressed stream is broken ({reason})"
        raise CorruptionError(problem, "Copy the file again, or make it again.") from error
    except EOFError as error:
        problem = f"{path}: the compressed stream is cut off"
        raise CorruptionError(problem, "Copy the file again, or make it again.") from error


def without_bom(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces of a file of text, from behind its byte order mark where it has one."""
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= len(BOM):
            break
    yield head.removeprefix(BOM)
    yield from pieces


def without_compression(name: str) -> str:
    """A file's name without the ending that tells its compression."""
    return re.sub(rf"({'|'.join(re.escape(ending) for ending in STREAMS)})$", "", name, flags=re.IGNORECASE)


def _raw(path: Path) -> Iterator[bytes]:
    try:
        with sys.stdin.buffer if path == STDIN else open(path, "rb") as file:
            while piece := file.read(PIECE):
                yield piece
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _zstd(raw: Iterator[bytes]) -> Iterator[bytes]:
    frame, whole = None, False
    for piece in raw:
        for start in range(0, len(piece), ZSTD_STEP):
            rest = piece[start : start + ZSTD_STEP]
            while rest:
                frame = frame or zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW).decompressobj()
                if out := frame.decompress(rest):
                    yield out
                whole, rest = frame.eof, frame.unused_data if frame.eof else b""
                if whole:
                    frame = None
    if not whole:  # an empty file too: even no bytes make a frame
        raise EOFError


def _members(raw: Iterator[bytes], begin: Callable[[], Any], needs_input: Callable[[Any], bool]) -> Iterator[bytes]:
    """Members one after another, as `cat a.gz b.gz` joins them."""
    member, whole = begin(), False
    for piece in raw:
        rest = piece
        while rest or not needs_input(member):
            if out := member.decompress(rest, PIECE):
                yield out
            rest = getattr(member, "unconsumed_tail", b"")
            whole = member.eof
            if whole:
                rest, member = member.unused_data.lstrip(b"\0"), begin()  # tapes pad with zeros
    if not whole:
        raise EOFError


def _gzip(raw: Iterator[bytes]) -> Iterator[bytes]:
    return _members(raw, lambda: zlib.decompressobj(wbits=31), lambda member: not member.unconsumed_tail)


def _bzip2(raw: Iterator[bytes]) -> Iterator[bytes]:
    return _members(raw, bz2.BZ2Decompressor, lambda member: member.needs_input)


STREAMS: dict[str, Callable[[Iterator[bytes]], Iterator[bytes]]] = {".zst": _zstd, ".gz": _gzip, ".bz2": _bzip2}
"""How to decompress, by the ending of a file's name."""
