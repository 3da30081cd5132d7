"""The texts of a benchmark file, whatever its shape."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from seedbed.errors import DataError
from seedbed.shards import parse_json, read_rows


def read_strings(path: Path) -> Iterator[str]:
    """Every string of a file, as deep as it lies in its rows; keys too, since TruthfulQA's are its answers. A line of
    .txt is a string.

    Raises DataError for a file that cannot be read as what its name promises, CorruptionError for a broken row.
    """
    reader = next((reader for ending, reader in READERS.items() if path.name.lower().endswith(ending)), None)
    if reader is None:
        raise DataError(f"{path} is no kind of benchmark file", f"Known kinds: {', '.join(READERS)}.")
    try:
        for row in reader(path):
            yield from _strings(row)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # not UTF-8, not JSON, not Parquet
        raise DataError(f"{path} is not a valid {path.suffix} file: {error}") from error


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, member in value.items():
            yield key
            yield from _strings(member)
    elif isinstance(value, list):
        for member in value:
            yield from _strings(member)


def _json(path: Path) -> Iterator[Any]:
    yield parse_json(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))


def _csv(path: Path) -> Iterator[Any]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            yield from csv.reader(file)
        except csv.Error as error:
            raise DataError(f"{path} is not a valid .csv file: {error}") from error


def _parquet(path: Path) -> Iterator[Any]:
    from pyarrow import parquet  # takes half a second

    with open(path, "rb") as file:
        for batch in parquet.ParquetFile(file).iter_batches():
            yield from batch.to_pylist()


def _lines(path: Path) -> Iterator[Any]:
    with open(path, encoding="utf-8-sig") as file:
        yield from file


READERS: dict[str, Callable[[Path], Iterator[Any]]] = {
    ".jsonl": read_rows,
    ".jsonl.zst": read_rows,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
    ".txt": _lines,
}
