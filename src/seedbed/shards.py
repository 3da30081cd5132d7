"""Rows on disk: one JSON object a line, compressed with Zstandard (.jsonl.zst) or plain (.jsonl).

Reading is strict, because Zstandard libraries end in silence where a file was cut off: a frame that does not end, a
checksum that does not match, a line that is no JSON object are errors that name the file and the row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import zstandard

from seedbed.errors import CorruptionError, DataError
from seedbed.runs import writing

PIECE = 1 << 20
"""Bytes read from disk at a time."""

DEEPEST = 100
"""Lists and objects inside one another: what is deeper than this no loop of ours follows to its end."""

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
            raise CorruptionError(f"{path}, row {number}: a JSON object is needed, got {type(row).__name__}")
        yield row


def parse_json(text: bytes) -> Any:
    """The JSON value in UTF-8 `text`. ValueError for anything the standard does not allow (NaN among it), for more than
    DEEPEST lists and objects inside one another, and for half a character (a lone surrogate), which no file can hold.
    """
    try:
        value = json.loads(text.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if text.count(b"[") + text.count(b"{") > DEEPEST and _is_deep(value):
        raise ValueError(f"it is nested more than {DEEPEST} deep")
    if b"\\ud" in text or b"\\uD" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"it holds U+{ord(error.object[error.start]):04X}, half of a character") from error
    return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        parts = (part.values() if isinstance(part, dict) else part for part in level if isinstance(part, dict | list))
        level = [item for part in parts for item in part]
    return any(isinstance(item, dict | list) for item in level)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def read_lines(path: Path | str) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, numbered from 1, without their ends; decompressed when its name ends in .zst.

    Raises CorruptionError naming the file and the line where the compressed stream is broken or cut off.
    """
    number, parts = 1, []
    for piece in _decompressed(Path(path)) if str(path).endswith(".zst") else _plain(Path(path)):
        if isinstance(piece, str):
            raise CorruptionError(f"{path}, row {number}: {piece}", "Copy the file again, or make it again.")
        first, *rest = piece.split(b"\n")
        parts.append(first)
        for following in rest:
            yield number, b"".join(parts).removesuffix(b"\r")
            number, parts = number + 1, [following]
    last = b"".join(parts)
    if last:
        yield number, last.removesuffix(b"\r")


def _plain(path: Path) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            while piece := file.read(PIECE):
                yield piece
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _decompressed(path: Path) -> Iterator[bytes | str]:
    """The content of a file of Zstandard frames; a str, last, says what is wrong with it."""
    frame, whole = None, False
    for raw in _plain(path):
        while raw:
            if frame is None:
                frame = zstandard.ZstdDecompressor().decompressobj()
            try:
                piece = frame.decompress(raw)
            except zstandard.ZstdError as error:
                # The library wraps its reason: "zstd decompressor error: Data corruption detected".
                yield f"the compressed stream is broken ({re.sub('^.*: ', '', str(error))})"
                return
            raw = frame.unused_data if frame.eof else b""
            whole = frame.eof
            if frame.eof:
                frame = None
            if piece:
                yield piece
    if not whole:  # an empty file too: even no rows make a frame
        yield "the compressed stream is cut off"


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
        try:
            line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"
        except (ValueError, TypeError) as error:  # UnicodeEncodeError, a lone surrogate, is a ValueError
            raise DataError(f"row {self.rows + 1} of {self.path.name} cannot be written as JSON: {error}") from error
        with writing(self.path):
            self._stream.write(line)
        self.rows += 1
        self.bytes += len(line)

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
