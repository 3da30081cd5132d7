"""A source as blocks: stretches of its files, cut where no record is cut.

One process reads every file once, from its beginning, in bounded memory. That is fast enough for a hundred workers, and
it lets a run go on inside any file, compressed or not: what a block holds says whether it was done before.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedbed.compression import read_pieces, without_bom
from seedbed.data.boundaries import last_boundary
from seedbed.data.config import ReadingConfig
from seedbed.data.messages import FIELDS
from seedbed.data.rows import json_rows
from seedbed.data.skills import training_items
from seedbed.data.sources.files import SourceFile, find_files
from seedbed.data.sources.hub import stream_rows
from seedbed.errors import CorruptionError, DataError
from seedbed.runs import parse_json

SKILL_ROWS = 100_000
"""Questions of the source `skills`; `max_bytes` takes fewer."""

LONGEST_JSON = 1 << 30
"""Bytes of a .json file, which has to be read whole."""

PARQUET_ROWS = 256
"""Rows of a Parquet file read at a time."""

BROKEN = b"broken file\n"
"""How the data of a bad block begins when its file breaks off."""

LINE_END = re.compile(rb"\n")

BLANK_LINES = re.compile(rb"\n(?:[ \t\r]*\n)+")
"""What parts paragraphs."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some records of a file, or what is wrong with it."""

    name: str
    """The file's name inside the source."""
    format: str
    """text, lines, paragraphs, rows, csv, tsv, html; or `bad`: then `data` says why, in two lines: reason, detail."""
    first: int
    """Number of the first record in its file, from 1: a line, a row, a part."""
    data: bytes
    whole: bool = False
    """The block is all of its file."""

    @property
    def is_broken(self) -> bool:
        """Its file cannot be read from here on."""
        return self.format == "bad" and self.data.startswith(BROKEN)


def read_blocks(source: str, reading: ReadingConfig, block_bytes: int) -> Iterator[Block]:
    """All blocks of a source, in order, each of about `block_bytes` or one record, if that is longer.

    Files that break off and records that are too long become blocks of the format `bad`. DataError when there is
    nothing to read, or a file cannot be opened.
    """
    for file in find_files(source):
        yield from _file_blocks(file, reading, block_bytes)


def _file_blocks(file: SourceFile, reading: ReadingConfig, block_bytes: int) -> Iterator[Block]:
    position, read = 1, 0
    try:
        cutter, pieces = _cutter(file, reading)
        for block in cutter(file, pieces, reading, block_bytes):
            position, read = block.first + 1, read + len(block.data)
            yield block
    except CorruptionError as error:
        reason = error.problem.removeprefix(f"{file.path}: ")
        reason += f"; only {read:,} bytes before that were read" if read else "; nothing of it was read"
        yield Block(file.name, "bad", position, BROKEN + reason.encode())


Cutter = Callable[[SourceFile, Iterator[bytes], ReadingConfig, int], Iterator[Block]]


def _cutter(file: SourceFile, reading: ReadingConfig) -> tuple[Cutter, Iterator[bytes]]:
    if file.format in WITHOUT_BYTES:
        return WITHOUT_BYTES[file.format], iter(())
    pieces = without_bom(read_pieces(file.path))
    if file.format == "stdin":  # rows when it looks like them
        head = next(pieces, b"")
        pieces = itertools.chain([head], pieces)
        return (_row_blocks if head.lstrip().startswith(b"{") else _text_cutter(reading)), pieces
    if file.format == "text":
        return _text_cutter(reading), pieces
    return {"rows": _row_blocks, "csv": _csv_blocks, "json": _json_blocks, "html": _html_blocks}[file.format], pieces


def _text_cutter(reading: ReadingConfig) -> Cutter:
    return {"file": _text_blocks, "line": _line_blocks, "paragraph": _paragraph_blocks}[reading.documents]


# Records that end with a line ----------------------------------------------------------------------------------------


def _line_blocks(
    file: SourceFile, pieces: Iterator[bytes], reading: ReadingConfig, block_bytes: int, format: str = "lines"
) -> Iterator[Block]:
    yield from _stretches(file, pieces, reading, block_bytes, format, lambda data: data.rfind(b"\n") + 1)


def _row_blocks(file: SourceFile, pieces: Iterator[bytes], reading: ReadingConfig, block_bytes: int) -> Iterator[Block]:
    yield from _line_blocks(file, pieces, reading, block_bytes, "rows")


def _paragraph_blocks(
    file: SourceFile, pieces: Iterator[bytes], reading: ReadingConfig, block_bytes: int
) -> Iterator[Block]:
    def end(data: bytes) -> int:
        return max((gap.end() for gap in BLANK_LINES.finditer(data)), default=0)

    yield from _stretches(file, pieces, reading, block_bytes, "paragraphs", end)


def _csv_blocks(file: SourceFile, pieces: Iterator[bytes], reading: ReadingConfig, block_bytes: int) -> Iterator[Block]:
    """Every block begins with the file's header line. A line's end inside quotes ends no record, and quotes inside
    quotes are doubled, so a record ends where the number of quotes before is even."""

    def ends(data: bytes) -> NDArray[np.intp]:
        characters = np.frombuffer(data, np.uint8)
        outside = np.cumsum(characters == ord('"')) % 2 == 0
        return np.flatnonzero((characters == ord("\n")) & outside) + 1

    def end(data: bytes) -> int:
        found = ends(data)
        return int(found[-1]) if len(found) else 0

    format = "tsv" if ".tsv" in file.name.lower() else "csv"
    header: bytes | None = None
    for block in _stretches(file, pieces, reading, block_bytes, format, end):
        if block.format == "bad":
            yield block
        elif header is None:
            found = ends(block.data)
            header = block.data[: found[0]] if len(found) else block.data
            yield block
        else:
            yield Block(block.name, format, block.first, header + block.data)


def _stretches(
    file: SourceFile,
    pieces: Iterator[bytes],
    reading: ReadingConfig,
    block_bytes: int,
    format: str,
    end: Callable[[bytes], int],
) -> Iterator[Block]:
    """Cuts a stream at the last place where a record ends, which `end` finds (0: nowhere). A record longer than
    `longest_row` is passed over, up to the next place where one may end, without being held."""
    resume = BLANK_LINES if format == "paragraphs" else LINE_END

    def pass_over(held: bytes) -> tuple[bytes, int, bool]:
        """What is behind the next place to resume at, the lines before it, and whether it is still to come."""
        found = resume.search(held)
        # What is left of an unfinished mark may go on in the next piece.
        at = found.end() if found else max(held.rfind(b"\n"), 0)
        return held[at:] if found or at else b"", held.count(b"\n", 0, at), not found

    held, first, skipping, last = b"", 1, False, False
    while not last:
        try:
            piece = next(pieces, None)
        except CorruptionError:
            if at := 0 if skipping else end(held):  # what is whole counts
                yield Block(file.name, format, first, held[:at])
            raise
        last = piece is None
        held += piece or b""
        if skipping:
            held, lines, skipping = pass_over(held)
            first += lines
            if skipping:
                continue
        while len(held) >= block_bytes or (last and held):
            at = len(held) if last and len(held) <= max(block_bytes, reading.longest_row) else end(held[:block_bytes])
            if not at:
                at = end(held)
            if at:
                yield Block(file.name, format, first, held[:at])
                first += held.count(b"\n", 0, at)
                held = held[at:]
            elif len(held) > reading.longest_row or last:
                detail = f"a record longer than reading.longest_row, {reading.longest_row:,} bytes"
                yield Block(file.name, "bad", first, f"record too long\n{detail}".encode())
                held, lines, skipping = pass_over(held)
                first += lines
                if skipping:
                    break
            else:
                break  # more is needed to see the record's end


# Whole files ---------------------------------------------------------------------------------------------------------


def _text_blocks(
    file: SourceFile, pieces: Iterator[bytes], reading: ReadingConfig, block_bytes: int
) -> Iterator[Block]:
    """A text file is one document; one larger than a block several, cut at blank lines, else lines, else spaces."""
    held, part = b"", 1
    for piece in pieces:
        held += piece
        while len(held) > block_bytes:
            at = last_boundary(held, block_bytes)
            yield Block(file.name, "text", part, held[:at])
            held, part = held[at:], part + 1
    if held or part == 1:
        yield Block(file.name, "text", part, held, whole=part == 1)


def _read_whole(file: SourceFile, pieces: Iterator[bytes], limit: int) -> bytes | Block:
    parts, size = [], 0
    for piece in pieces:
        parts.append(piece)
        size += len(piece)
        if size > limit:
            return Block(file.name, "bad", 1, f"file too long\nlarger than {limit:,} bytes".encode())
    return b"".join(parts)


def _html_blocks(
    file: SourceFile, pieces: Iterator[bytes], reading: ReadingConfig, block_bytes: int
) -> Iterator[Block]:
    data = _read_whole(file, pieces, reading.longest_row)
    yield data if isinstance(data, Block) else Block(file.name, "html", 1, data, whole=True)


def _json_blocks(
    file: SourceFile, pieces: Iterator[bytes], reading: ReadingConfig, block_bytes: int
) -> Iterator[Block]:
    """A .json file holds an array of rows, an object with one array in it, one row, or one row a line."""
    data = _read_whole(file, pieces, LONGEST_JSON)
    if isinstance(data, Block):
        yield data
        return
    try:
        value = parse_json(data)
    except ValueError as error:
        if "Extra data" in str(error):  # a row a line, in spite of its name
            yield from _row_blocks(file, iter([data]), reading, block_bytes)
            return
        yield Block(file.name, "bad", 1, f"invalid JSON\n{error}".encode())
        return
    yield from row_blocks(file.name, json_rows(value), block_bytes)


def _columns(names: Iterable[str], reading: ReadingConfig) -> list[str]:
    """Those that a text may be in; all when there is none, so that the error can name what there is."""
    names = list(names)
    known = [reading.text_field] if reading.text_field else FIELDS
    return [name for name in names if name in known] or names


def _parquet_blocks(
    file: SourceFile, pieces: Iterator[bytes], reading: ReadingConfig, block_bytes: int
) -> Iterator[Block]:
    import pyarrow  # here, because it takes a quarter of a second
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file.path) as table:
            columns = _columns(table.schema_arrow.names, reading)
            batches = table.iter_batches(batch_size=PARQUET_ROWS, columns=columns, use_threads=False)
            yield from row_blocks(file.name, (row for batch in batches for row in batch.to_pylist()), block_bytes)
    except (pyarrow.ArrowException, OverflowError, ValueError, KeyError) as error:  # dates and zones beyond Python's
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CorruptionError(f"{file.path}: not a Parquet file that can be read: {reason}") from error
    except OSError as error:
        raise DataError(f"cannot read {file.path}: {error.strerror or error}") from error


def _hub_blocks(file: SourceFile, pieces: Iterator[bytes], reading: ReadingConfig, block_bytes: int) -> Iterator[Block]:
    rows = ({name: row[name] for name in _columns(row, reading)} for row in stream_rows(file.name, reading.hub))
    yield from row_blocks(file.name, rows, block_bytes)


def _skill_blocks(
    file: SourceFile, pieces: Iterator[bytes], reading: ReadingConfig, block_bytes: int
) -> Iterator[Block]:
    rows = ({"prompt": item.prompt, "response": item.answer} for item in training_items(SKILL_ROWS))
    yield from row_blocks(file.name, rows, block_bytes)


WITHOUT_BYTES: dict[str, Cutter] = {"parquet": _parquet_blocks, "hub": _hub_blocks, "skills": _skill_blocks}
"""What is not read as one stream of bytes."""


def _plain(value: Any) -> Any:
    """Of what JSON does not have: bytes are text, as in tables without types; all else is told by its kind, no text."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else {type(value).__name__: str(value)}


def row_blocks(name: str, rows: Iterable[Any], block_bytes: int) -> Iterator[Block]:
    """Rows that are no lines of a file, as blocks of JSON lines."""
    lines: list[bytes] = []
    size, first = 0, 1
    for number, row in enumerate(rows, start=1):
        line = json.dumps(row, default=_plain).encode() + b"\n"
        if lines and size + len(line) > block_bytes:
            yield Block(name, "rows", first, b"".join(lines))
            lines, size, first = [], 0, number
        lines.append(line)
        size += len(line)
    if lines:
        yield Block(name, "rows", first, b"".join(lines))
