"""Reading JSON files that anyone may have written: what is not as it must be is one error that names file and field."""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from seedbed.errors import CorruptionError, DataError

R = TypeVar("R")

LARGEST_NUMBER = 2**63 - 1
DEEPEST = 100
"""Lists and objects inside one another: what is deeper than this no loop of ours follows to its end."""


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


def read_json(path: Path | str) -> dict[str, Any]:
    """The JSON object in a file. CorruptionError when it cannot be read or holds something else."""
    try:
        values = parse_json(Path(path).read_bytes())
    except OSError as error:
        raise CorruptionError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise CorruptionError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise CorruptionError(f"{path} must hold a JSON object, got {json_name(values)}")
    return values


def read_record(
    cls: type[R], path: Path | str, key: str | None = None, *, required: Collection[str] | None = None
) -> R:
    """The dataclass `cls`, of plain fields, that the JSON object in a file describes, or the one under a key of it.

    Every field, or every `required` one, must be there, and what is there of its type. CorruptionError naming file and
    field when one is not, DataError for a field that only another version can have written.
    """
    values: Any = read_json(path)
    prefix = ""
    if key is not None:
        values, prefix = values.get(key), f"{key}."
        if not isinstance(values, dict):
            raise CorruptionError(f"{path}: {key} must be an object, got {json_name(values)}")
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]  # a TypeVar cannot say "dataclass"
    for name in values:
        if name not in names:
            raise DataError(f"{path}: {prefix}{name[:60]} is not known to this version of seedbed")
    for name in names if required is None else required:
        if name not in values:
            raise CorruptionError(f"{path}: {prefix}{name} is missing")
    return make_record(cls, values, f"{path}: {prefix}")


def make_record(cls: type[R], values: Mapping[str, Any], where: str) -> R:
    """The dataclass `cls` with these fields; CorruptionError, naming the field after `where`, for a value that is not
    of its type."""
    hints = get_type_hints(cls)
    return cls(**{name: _plain(hints[name], value, where + name) for name, value in values.items()})


def check_number(values: Any, keys: Sequence[str], path: Path | str) -> None:
    """CorruptionError, naming file and field, unless there is a number at `keys` of the JSON object of a file."""
    for key in keys:
        values = values.get(key) if isinstance(values, dict) else None
    _plain(float, values, f"{path}: {'.'.join(keys)}")


def _plain(hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) is Literal:
        if value in get_args(hint) and isinstance(value, str):
            return value
        raise CorruptionError(f"{where} must be one of {', '.join(get_args(hint))}, got {json_name(value)}")
    if get_origin(hint) is tuple:  # of any length, all of one type
        if isinstance(value, list):
            return tuple(_plain(get_args(hint)[0], item, where) for item in value)
        raise CorruptionError(f"{where} must be a list, got {json_name(value)}")
    kinds = get_args(hint) or (hint,)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST_NUMBER
    if float in kinds and is_number and math.isfinite(value):
        return float(value)
    if (int in kinds and is_number and isinstance(value, int)) or (value is None and types.NoneType in kinds):
        return value
    if (bool in kinds and isinstance(value, bool)) or (str in kinds and isinstance(value, str)):
        return value
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", types.NoneType: "null"}
    raise CorruptionError(f"{where} must be {' or '.join(names[kind] for kind in kinds)}, got {json_name(value)}")


def json_name(value: Any) -> str:
    """A JSON value as a person would say it, on one line and not longer than 60 characters; of other values, which
    tables hold, the type."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, str):
        return f"a text ({json.dumps(value[:40])}{'…' if len(value) > 40 else ''})"
    if not (value is None or isinstance(value, int | float)):
        return type(value).__name__
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
