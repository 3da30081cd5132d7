"""The rows of a file, whatever its format: .json (a list), .jsonl or .ndjson (one a line), .csv and .tsv (a header
first), .parquet; all but the last also as .zst, .gz or .bz2.

What a row must hold is its reader's affair (`conversations`, `preferences`); here it is any JSON value.
"""

from __future__ import annotations

import csv
import glob
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from seedbed.compression import read_pieces, without_bom, without_compression
from seedbed.data.messages import TURNS
from seedbed.errors import DataError
from seedbed.runs import parse_json
from seedbed.shards import read_lines

FORMATS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")

RECORDS = ("manifest.json", "result.json", "stats.json", "dataset_info.json", "state.json")
"""Files of our own folders, and of those that `datasets` saves, that hold no rows."""

ARROW = "Arrow files of datasets become Parquet by load_from_disk(FOLDER).to_parquet(FILE), in Python."
"""What to do with what `save_to_disk` has written."""

PARQUET_ROWS = 256
"""Rows of a Parquet file in memory at a time."""

LONGEST_JSON = 256 << 20
"""Bytes of a .json file, which has to be read whole."""

LONGEST_FIELD = 64 << 20
"""Characters of a field in a table."""


def row_files(path: Path) -> list[Path]:
    """The files that a path names: itself, or in the order of their names those that it matches as a glob, such as the
    shards of a data set. DataError when there are none."""
    if not glob.has_magic(str(path)) or path.exists():
        return [path]
    found = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
    if not found:
        raise DataError(f"{path} matches no file", "It is read as a glob, in which * ? [ ] stand for other characters.")
    return found


def input_files(role: str, path: Path) -> dict[str, Path]:
    """The files of rows that a run is made from, by role."""
    files = row_files(path)
    return {role: path} if files == [path] else {f"{role} {i}": file for i, file in enumerate(files, start=1)}


def numbered_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """The rows of a file, numbered from 1, in order. In a table every value is a text; a null of Parquet is None.

    Raises DataError, naming the file and the row, for what is not in the format the name promises, and for a file that
    cannot be read; CorruptionError for a broken compressed stream.
    """
    ending = Path(without_compression(path.name.lower())).suffix
    if ending not in FORMATS or path.is_dir():
        raise _no_rows(path)
    yield from READERS[ending](path)


def json_rows(value: Any) -> list[Any]:
    """The rows in what a .json file holds: a list's, those of the list that is all an object holds ({"data": […]}), or
    the value as one row, such as a conversation."""
    if isinstance(value, dict) and len(value) == 1 and not value.keys() & set(TURNS):
        (only,) = value.values()
        return only if isinstance(only, list) else [value]
    return value if isinstance(value, list) else [value]


@contextmanager
def naming(row: str) -> Iterator[None]:
    """Puts the row's name (`row_name`) before what an error says."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{row}: {error.problem}", error.fix) from error


def row_name(path: Path, number: int) -> str:
    """What a row is called in messages to people."""
    return f"{path}, row {number:,}"


def _no_rows(path: Path) -> DataError:
    """What a path is that is no file of rows, and which one to give instead."""
    known = f"Known are {', '.join(FORMATS)}."
    if path.is_dir():
        files = sorted(file.name for file in path.iterdir() if _is_rows(file) and file.name not in RECORDS)
        shown = f"{', '.join(files[:3])}{' …' if len(files) > 3 else ''}"
        return DataError(
            f"{path} is a folder; files of rows are needed here",
            f"Give one of the {len(files):,} in it ({shown}), or several as a glob: '{path}/*{_ending(files[0])}'."
            if files
            else (ARROW if any(path.rglob("*.arrow")) else known),
        )
    if not path.exists():
        download = (
            "A data set of the hub is downloaded first: hf download OWNER/NAME --repo-type dataset --local-dir DIR"
        )
        return DataError(f"{path} is not there; a file of rows is needed here", f"{known}\n{download}")
    if path.suffix in (".txt", ".md", ".html"):
        known += " Plain text is for seedbed prepare, and a model learns it by pretrain."
    if path.suffix == ".arrow":
        known += f" {ARROW}"
    return DataError(f"{path} holds no rows by its name", known)


def _is_rows(path: Path) -> bool:
    return Path(without_compression(path.name.lower())).suffix in FORMATS


def _ending(name: str) -> str:
    """That of its format, and of its compression: .jsonl.zst."""
    return name.removeprefix(Path(without_compression(name)).stem)


def _whole(path: Path) -> bytes:
    """All of a file, decompressed."""
    parts, size = [], 0
    for piece in without_bom(read_pieces(path)):
        parts.append(piece)
        size += len(piece)
        if size > LONGEST_JSON:
            raise DataError(f"{path} holds more than {LONGEST_JSON >> 20} MiB", "Write one row a line: .jsonl.")
    return b"".join(parts)


def _array(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        rows = json_rows(parse_json(_whole(path)))
    except ValueError as error:
        if "Extra data" in str(error):  # a row a line, in spite of its name
            yield from _lines(path)
            return
        raise DataError(f"{path} is not valid JSON ({error})") from error
    yield from enumerate(rows, start=1)


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in read_lines(path):
        try:
            row = parse_json(line)
        except ValueError as error:
            raise DataError(f"{row_name(path, number)}: not valid JSON ({error})") from error
        yield number, row


def _table(path: Path, delimiter: str = ",") -> Iterator[tuple[int, dict[str, str]]]:
    csv.field_size_limit(LONGEST_FIELD)
    number = 0
    try:
        lines = (line.decode("utf-8") + "\n" for _, line in read_lines(path))
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        header = next(rows, [])
        if twice := next((name for place, name in enumerate(header) if name in header[:place]), None):
            raise DataError(f"{path}: two columns of its first line are called {twice[:60]!r}", "It must name them.")
        for number, fields in enumerate((row for row in rows if row), start=1):
            if len(fields) != len(header):
                raise DataError(
                    f"{row_name(path, number)}: it has {len(fields)} fields, the header {len(header)}",
                    'A separator or line end inside a field needs quotes around it: "like, this".',
                )
            yield number, dict(zip(header, fields, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{row_name(path, number + 1)}: not valid CSV ({error})") from error


def _parquet(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow  # here, because it takes a quarter of a second
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=PARQUET_ROWS, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OverflowError, ValueError, KeyError) as error:  # dates and zones beyond Python's
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{row_name(path, number + 1)}: not Parquet that can be read ({reason})") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


READERS: dict[str, Callable[[Path], Iterator[tuple[int, Any]]]] = {
    ".json": _array,
    ".jsonl": _lines,
    ".ndjson": _lines,
    ".csv": _table,
    ".tsv": partial(_table, delimiter="\t"),
    ".parquet": _parquet,
}
"""How the rows of a file are read, by the ending of its name."""
