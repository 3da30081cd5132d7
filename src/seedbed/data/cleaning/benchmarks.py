"""The texts of a benchmark file, whatever its shape."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seedbed.compression import without_compression
from seedbed.data.rows import FORMATS, numbered_rows, row_name
from seedbed.errors import DataError
from seedbed.shards import read_lines


def read_strings(path: Path) -> Iterator[str]:
    """Every string of a file of rows, as deep as it lies in them; keys too, since TruthfulQA's are its answers. A line
    of .txt is a string.

    Raises DataError for a file that cannot be read as what its name promises, CorruptionError for a compressed stream
    that is broken.
    """
    name = without_compression(path.name.lower())
    if name.endswith(".txt"):
        yield from _lines(path)
    elif name.endswith(FORMATS):
        for _, row in numbered_rows(path):
            yield from _strings(row)
    else:
        raise DataError(f"{path} is no kind of benchmark file", f"Known kinds: {', '.join(FORMATS)}, .txt.")


def _lines(path: Path) -> Iterator[str]:
    for number, line in read_lines(path):
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{row_name(path, number)}: not UTF-8 ({error})") from error


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
