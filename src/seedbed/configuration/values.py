"""Config objects from parsed values."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from seedbed.configuration.hints import alternatives, is_config
from seedbed.errors import ConfigError

T = TypeVar("T")


def build(cls: type[T], values: Mapping[str, Any], path: str = "") -> T:
    """Dataclasses from parsed values, innermost first. A ConfigError of a class is told with its key's full path."""
    hints = get_type_hints(cls)
    arguments = {
        spec.name: _build_value(hints[spec.name], values[spec.name], f"{path}{spec.name}")
        for spec in dataclasses.fields(cls)  # type: ignore[arg-type]  # a TypeVar cannot say "dataclass"
        if spec.init and spec.name in values
    }
    try:
        return cls(**arguments)
    except ConfigError as error:
        if not path:
            raise
        named = re.match(r"\w+", error.problem)
        inside = named is not None and named[0] in hints
        problem = f"{path}{error.problem}" if inside else f"{path.rstrip('.')}: {error.problem}"
        raise ConfigError(problem, error.fix) from None


def _build_value(hint: Any, value: Any, path: str) -> Any:
    parts = alternatives(hint)
    if isinstance(value, Mapping):
        for part in parts:
            if is_config(part) and value.keys() <= {spec.name for spec in dataclasses.fields(part)}:
                return build(part, value, path + ".")
        inner = next((get_args(part)[1] for part in parts if get_origin(part) is dict), Any)
        return {key: _build_value(inner, item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        inner = next((get_args(part)[0] for part in parts if get_origin(part) is list), Any)
        return [_build_value(inner, item, f"{path}[{number}]") for number, item in enumerate(value)]
    if isinstance(value, str | Path) and (wrong := flaw(str(value))):
        raise ConfigError(f"{path} holds {wrong}")  # by an escape in quotes
    return value


def flaw(text: str) -> str | None:
    """What keeps a text out of files and folder names, if anything does: every value comes to stand in a record."""
    if "\0" in text:
        return "a NUL character"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "bytes or half characters that UTF-8 cannot hold"
    return None
