"""A config as text: YAML that reads back as an equal config."""

from __future__ import annotations

import dataclasses
import enum
import math
import os
import textwrap
from collections.abc import Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import yaml

from seedbed.configuration.options import options


def to_dict(config: Any) -> Any:
    """A config as plain dicts, lists, strings and numbers: what YAML and JSON can carry."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {spec.name: to_dict(getattr(config, spec.name)) for spec in dataclasses.fields(config) if spec.init}
    if isinstance(config, Mapping):
        return {str(key): to_dict(value) for key, value in config.items()}
    if isinstance(config, list | tuple | set | frozenset):
        return [to_dict(value) for value in config]
    if isinstance(config, enum.Enum):
        return config.name
    return os.fspath(config) if isinstance(config, os.PathLike) else config


def to_yaml(cls: type, values: Mapping[str, Any], *, comments: bool = False, indent: str = "") -> str:
    """Values of a config class as YAML in the order of its fields; a key that must be given and is not is a comment.

    With `comments`, each key is preceded by what it means and what is allowed.
    """
    lines: list[str] = []
    for name, option in options(cls).items():
        if "." in name:
            continue
        if comments:
            note = f"{option.about} " if option.about else ""
            note += "" if option.group else f"({option.allowed})"
            lines += ["", *(f"{indent}# {line}" for line in _wrap(note.strip(), 110 - len(indent)))]
        value = to_dict(values[name]) if name in values else MISSING
        if value is MISSING and option.default is MISSING:
            lines.append(f"{indent}# {name}: required")
        elif option.group and isinstance(value, Mapping) and value:
            lines += [
                f"{indent}{name}:",
                to_yaml(option.group, value, comments=comments, indent=indent + "  ").rstrip(),
            ]
        else:
            value = None if value is MISSING else value
            written = yaml.safe_dump(
                value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=math.inf
            )
            written = written.strip().removesuffix("...").rstrip()  # YAML ends a bare scalar's document with dots
            lines.append(f"{indent}{name}: {written}")
    return "\n".join(lines).lstrip("\n") + "\n"


def save_config(path: str | Path, config: Any) -> None:
    """Write a config as YAML, atomically; `load_config` gives back an equal one. Raises StorageError."""
    from seedbed.runs import write_atomic

    write_atomic(Path(path), to_yaml(type(config), to_dict(config)))


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width) or [""]
