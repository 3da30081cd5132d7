"""Rows on disk: one JSON object a line, compressed with Zstandard (.jsonl.zst) or plain (.jsonl).

Reading is strict, because Zstandard libraries end in silence where a file was cut off: a frame that does not end, a
checksum that does not match, a line that is no JSON object are errors that name the file and the row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import zstandard

from seedbed.compression import read_pieces, without_bom
from seedbed.errors import CorruptionError, DataError
from seedbed.runs import json_name, parse_json, write_atomic, writing

LONGEST_LINE = 64 << 20
"""Bytes; a longer line is no row that anyone wrote on purpose, and memory has to end somewhere."""

LEVEL = 3
"""Zstandard's own default: faster than the disk, and within some percent of the levels people wait for."""


def read_rows(path: Path | str) -> Iterator[dict[str, Any]]:
    """The rows of a .jsonl or .jsonl.zst file, in order, in bounded memory.

    Raises CorruptionError naming the file and the row (from 1) for bytes no writer of rows leaves behind, DataError
    when the file cannot be opened.
    """
    for number, line in read_lines(path):
        try:
            row = parse_json(line)
        except ValueError as error:
            raise CorruptionError(f"{path}, row {number}: not valid JSON ({error})") from error
        if not isinstance(row, dict):
            raise CorruptionError(f"{path}, row {number}: a JSON object is needed, got {json_name(row)}")
        yield row


def read_lines(path: Path | str) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, numbered from 1, without their ends; decompressed by the ending of its name.

    Raises CorruptionError naming the file and the line where the compressed stream is broken or cut off, or where a
    line is longer than LONGEST_LINE.
    """
    number, parts, length = 1, [], 0
    try:
        for piece in without_bom(read_pieces(path)):
            first, *rest = piece.split(b"\n")
            parts.append(first)
            length += len(first)
            for following in rest:
                yield number, b"".join(parts).removesuffix(b"\r")
                number, parts, length = number + 1, [following], len(following)
            if length > LONGEST_LINE:
                raise CorruptionError(f"{path}: this row is longer than {LONGEST_LINE >> 20} MiB")
    except CorruptionError as error:
        reason = error.problem.removeprefix(f"{path}: ")
        raise CorruptionError(f"{path}, row {number}: {reason}", error.fix) from error
    last = b"".join(parts)
    if last:
        yield number, last.removesuffix(b"\r")


def render_row(row: Mapping[str, Any], where: str) -> bytes:
    """A row as one line of JSON, without its end. DataError, naming it by `where`, when it holds what JSON or UTF-8
    cannot."""
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, TypeError) as error:  # UnicodeEncodeError, a lone surrogate, is a ValueError
        raise DataError(f"{where} cannot be written as JSON: {error}") from error


def write_rows(path: Path | str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a plain .jsonl file atomically, from memory. Raises what RowWriter.write raises."""
    name = Path(path).name
    lines = (render_row(row, f"row {number} of {name}") for number, row in enumerate(rows, start=1))
    write_atomic(path, b"".join(line + b"\n" for line in lines))


class RowWriter:
    """Writes rows to a .jsonl.zst file; the same rows make the same bytes. Use it in a `with` block.

    The frame carries a checksum of its content, so that `read_rows` notices any changed byte. It does not write
    atomically: folders do that (`runs.new_folder`).
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.rows = 0
        self.bytes = 0
        """Uncompressed bytes written."""
        with writing(self.path):
            self._file = open(self.path, "wb")  # noqa: SIM115 (closed by close)
        self._stream = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).stream_writer(
            self._file, closefd=False
        )

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends one row. DataError when it holds what JSON or UTF-8 cannot, StorageError when the disk refuses."""
        self.write_line(render_row(row, f"row {self.rows + 1} of {self.path.name}"))

    def write_line(self, line: bytes) -> None:
        """Appends one row that `render_row` has made."""
        with writing(self.path):
            self._stream.write(line + b"\n")
        self.rows += 1
        self.bytes += len(line) + 1

    def close(self) -> None:
        """Ends the frame; only then is the file whole."""
        if not self._file.closed:
            with writing(self.path):
                try:
                    self._stream.close()
                finally:
                    self._file.close()

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:  # leave the frame unfinished: what is read back must not look whole
            self._file.close()
