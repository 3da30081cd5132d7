"""Type hints of config fields, and what they are called in words."""

from __future__ import annotations

import dataclasses
import enum
import os
import re
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin


def is_config(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def words(hint: Any) -> str:
    """A type as a person would say it."""
    parts, origin, arguments = alternatives(hint), get_origin(hint), get_args(hint)
    if len(parts) > 1:
        return " or ".join(words(part) for part in parts)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}" if len(arguments) > 1 else str(arguments[0])
    if origin is tuple and Ellipsis not in arguments:
        return f"a list of {len(arguments)} values [{', '.join(words(part) for part in arguments)}]"
    if origin in (list, tuple, set):
        return f"a list, each {words(arguments[0])}"
    if origin is dict:
        return f"keys with values, each {words(arguments[1])}"
    if is_config(hint):
        return f"a group of keys ({', '.join(spec.name for spec in dataclasses.fields(hint))})"
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return f"one of {', '.join(hint.__members__)}"
    if isinstance(hint, type) and issubclass(hint, os.PathLike):
        return "a path"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", types.NoneType: "null"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def is_plain_list(hint: Any) -> bool:
    plain = (str, int, float, Path)
    lists = [get_args(part)[0] for part in alternatives(hint) if get_origin(part) in (list, tuple)]
    return any(item in plain or get_origin(item) is Literal for item in lists)


def names_in_list(hint: Any) -> tuple[str, ...]:
    """What each entry may be, if the value is a list of certain words."""
    lists = [get_args(part)[0] for part in alternatives(hint) if get_origin(part) is list]
    return next((get_args(item) for item in lists if get_origin(item) is Literal), ())


def shown(value: Any) -> str:
    """A value in an error: quoted if it is text, on one line, not longer than 80 characters."""
    if not isinstance(value, str):
        return str(value)
    value = {"None": "null", "True": "true", "False": "false"}.get(value, value)
    plain = re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?|[\[{].*[\]}]|true|false|null", value)
    text = value if plain else repr(value)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(value):,} characters)"
