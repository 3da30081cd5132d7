"""Raw text as people have it: files and folders of .txt, .md, .jsonl, .jsonl.zst, .parquet, and Python's own library.

Reading is strict. Bytes that are not UTF-8, NUL bytes, broken JSON or a missing text are errors that name the file and
the line: what is silently skipped or replaced here would be learned as it is. Memory stays bounded: a long document is
cut.
"""

from __future__ import annotations

import os
import re
import stat
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedbed.errors import CorruptionError, DataError
from seedbed.runs import parse_json
from seedbed.shards import read_lines

LONGEST_DOCUMENT = 4 << 20
"""Characters. A document of more than twice as many is cut into such parts: no context window is anywhere near."""

BLOCK = 1 << 20
"""Bytes of a text file read at a time."""

STDLIB_LEFT_OUT = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "idlelib", "__pycache__"}
)
"""Folders of the standard library that are tests, other people's packages, or programs nobody reads to learn from."""


@dataclass(frozen=True)
class Document:
    """One text and where it comes from: a path inside the source, with a line or part where a file holds several."""

    text: str
    name: str


def read_documents(source: str | Path) -> Iterator[Document]:
    """The documents of `stdlib`, a file or a folder, in an order that depends on names only. Empty texts are included.

    Raises DataError, naming file and line, for anything that cannot be read as what its name promises, and for a source
    that holds no text at all.
    """
    anything = False
    for document in _stdlib() if source == "stdlib" else _path(Path(source)):
        anything = anything or bool(document.text.strip())
        yield from _parts(document)
    if not anything:
        raise DataError(f"{source} is empty: it holds no text")


def _path(source: Path) -> Iterator[Document]:
    if source.is_dir():
        files = [path for path in _walk(source) if _reader(path)]
        if not files:
            raise DataError(f"{source} holds no files that can be read as text", f"Known kinds: {', '.join(READERS)}.")
        for path in files:
            yield from _read(path, path.relative_to(source).as_posix())
        return
    try:
        mode = source.stat().st_mode
    except OSError as error:
        fix = None
        if source.name == str(source):
            fix = "A source is `stdlib`, a file or a folder."
        raise DataError(f"cannot read {source}: {error.strerror or error}", fix) from error
    if not stat.S_ISREG(mode):
        raise DataError(f"{source} is neither a file nor a folder")
    yield from _read(source, source.name)


def _walk(folder: Path, without: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Files below a folder, sorted by name, without hidden ones and those named in `without`. Links are followed, but
    no folder is entered twice."""
    seen: set[str] = set()

    def visit(place: Path) -> Iterator[Path]:
        real = os.path.realpath(place)
        if real in seen:
            return
        seen.add(real)
        try:
            entries = sorted(place.iterdir(), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"cannot read {place}: {error.strerror or error}") from error
        for entry in entries:
            if entry.name.startswith(".") or entry.name in without:
                continue
            if entry.is_dir():
                yield from visit(entry)
            elif entry.is_file() or entry.is_symlink():  # a link to nowhere is an error when it is read
                yield entry

    return visit(folder)


def _read(path: Path, name: str) -> Iterator[Document]:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode("utf-8", errors="backslashreplace")
        raise DataError(f"the name of {shown} is not UTF-8, and a corpus keeps names", "Rename that file.") from error
    reader = _reader(path)
    if reader is None:
        known = ", ".join(READERS)
        raise DataError(
            f"{path} is of no kind that can be read", f"Known kinds: {known}. Plain text? Rename it to .txt."
        )
    try:
        yield from reader(path, name)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _reader(path: Path) -> Callable[[Path, str], Iterator[Document]] | None:
    return next((reader for ending, reader in READERS.items() if path.name.lower().endswith(ending)), None)


# Python's own library -----------------------------------------------------------------------------------------------


def _stdlib() -> Iterator[Document]:
    """Python's own modules. Files in other encodings than UTF-8 are skipped: they exist to test decoders."""
    library = Path(sysconfig.get_path("stdlib"))
    found = False
    for path in _walk(library, STDLIB_LEFT_OUT):
        if path.suffix != ".py":
            continue
        try:
            text = path.read_bytes().decode("utf-8")
        except (UnicodeDecodeError, OSError):
            continue
        found = True
        yield Document(text, path.relative_to(library).as_posix())
    if not found:
        raise DataError(
            f"the source of Python's standard library is not in {library}",
            "Install a full Python, or name a file or folder of your own: --source PATH.",
        )


# Text files ---------------------------------------------------------------------------------------------------------


def _text_file(path: Path, name: str) -> Iterator[Document]:
    """A text file is one document, and a long one several."""
    parts: list[str] = []
    length = number = 0
    for text in _decoded(path):
        parts.append(text)
        length += len(text)
        while length > 2 * LONGEST_DOCUMENT:
            whole = "".join(parts)
            at = paragraph_boundary(whole, LONGEST_DOCUMENT)
            number += 1
            yield Document(whole[:at], f"{name}#{number}")
            parts, length = [whole[at:]], len(whole) - at
    yield Document("".join(parts), f"{name}#{number + 1}" if number else name)


def _decoded(path: Path) -> Iterator[str]:
    """A file's text in pieces; a byte order mark is dropped."""
    rest, offset, line = b"", 0, 1
    with open(path, "rb") as file:
        while True:
            block = file.read(BLOCK)
            raw = rest + block
            if offset == 0:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            try:
                text, rest = raw.decode("utf-8"), b""
            except UnicodeDecodeError as error:
                if not block or error.end < len(raw):
                    raise _not_text(path, line + raw[: error.start].count(b"\n"), raw[error.start]) from error
                text, rest = raw[: error.start].decode("utf-8"), raw[error.start :]  # perhaps cut by the block's end
            if "\0" in text:
                raise _not_text(path, line + text[: text.index("\0")].count("\n"), 0)
            line += text.count("\n")
            offset += len(block)
            yield text
            if not block:
                return


def _not_text(path: Path, line: int, byte: int) -> DataError:
    what = "a NUL byte" if byte == 0 else f"the byte 0x{byte:02x}"
    return DataError(f"{path}, line {line}: {what} is not UTF-8 text", "Convert the file to UTF-8, or leave it out.")


# Rows ---------------------------------------------------------------------------------------------------------------


def _rows(path: Path, name: str) -> Iterator[Document]:
    """A JSON object a line, each with a "text"; blank lines are passed over."""
    try:
        for number, line in read_lines(path):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            try:
                row = parse_json(line)
            except UnicodeDecodeError as error:
                raise _not_text(path, number, line[error.start]) from error
            except ValueError as error:
                raise DataError(f"{path}, line {number}: not valid JSON ({error})") from error
            if not isinstance(row, dict):
                raise DataError(f'{path}, line {number}: a JSON object with a "text" is needed, not {_kind(row)}')
            if "text" not in row:
                keys = ", ".join(list(row)[:8]) or "nothing"
                raise DataError(f'{path}, line {number}: there is no "text" in this row (it has {keys[:200]})')
            yield Document(_checked(row["text"], f"{path}, line {number}"), f"{name}:{number}")
    except CorruptionError as error:
        raise DataError(error.problem, error.fix) from error


def _parquet(path: Path, name: str) -> Iterator[Document]:
    """The column "text", batch by batch."""
    import pyarrow  # here, because it takes a quarter of a second
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            if "text" not in table.schema_arrow.names:
                columns = ", ".join(table.schema_arrow.names[:8])
                raise DataError(f'{path} has no column "text" (it has {columns[:200]})')
            for batch in table.iter_batches(batch_size=64, columns=["text"], use_threads=False):
                for value in batch.column(0):
                    number += 1
                    yield Document(_checked(value.as_py(), f"{path}, row {number}"), f"{name}:{number}")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, row {number}: its text is not UTF-8") from error
    except pyarrow.ArrowException as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} is not a Parquet file that can be read: {reason}") from error


def _checked(text: Any, where: str) -> str:
    """A row's text, if it is one."""
    if not isinstance(text, str):
        raise DataError(f'{where}: "text" must be a text, not {_kind(text)}')
    if "\0" in text:
        raise DataError(f'{where}: "text" holds a NUL character')
    return text


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


READERS: dict[str, Callable[[Path, str], Iterator[Document]]] = {
    ".txt": _text_file,
    ".md": _text_file,
    ".jsonl": _rows,
    ".jsonl.zst": _rows,
    ".parquet": _parquet,
}
"""How to read a file, by the ending of its name."""


# Cutting ------------------------------------------------------------------------------------------------------------


def paragraph_boundary(text: str, near: int) -> int:
    """Where to cut `text` in two near a position: at a blank line, else a line's end, else a space, else there.

    The cut lies after the boundary and strictly inside the text, which must have two characters or more.
    """
    near = min(max(near, 1), len(text) - 1)
    # A boundary may lie an eighth of the text away, and for long texts no more than 64 Ki characters.
    reach = min(max(len(text) // 8, 1), 1 << 16)
    low, high = max(near - reach, 0), min(near + reach, len(text))
    for boundary in (r"\n\s*\n", r"\n", r"[^\S\n]"):
        ends = [low + match.end() for match in re.finditer(boundary, text[low:high])]
        ends = [end for end in ends if 0 < end < len(text)]
        if ends:
            return min(ends, key=lambda end: abs(end - near))
    return near


def _parts(document: Document) -> Iterator[Document]:
    """A document, or its parts if it is too long for one."""
    text, number = document.text, 1
    if len(text) <= 2 * LONGEST_DOCUMENT:
        yield document
        return
    while len(text) > 2 * LONGEST_DOCUMENT:
        at = paragraph_boundary(text, LONGEST_DOCUMENT)
        yield Document(text[:at], f"{document.name}#{number}")
        text, number = text[at:], number + 1
    yield Document(text, f"{document.name}#{number}")
