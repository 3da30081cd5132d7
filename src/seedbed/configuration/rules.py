"""Rules for `__post_init__`: each names the field, the parser puts the path before it. None is left out and passes.
And the rules that no option does nothing, and that no file brings code along."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from seedbed.errors import ConfigError


def positive(config: Any, *names: str) -> None:
    """Each named number is finite and above zero, else ConfigError."""
    for name, value in _given(config, names):
        if not (value > 0 and math.isfinite(value)):
            raise ConfigError(f"{name} must be > 0, got {value}")


def at_least(config: Any, least: float, *names: str) -> None:
    """Each named number is finite and not below `least`, else ConfigError."""
    for name, value in _given(config, names):
        if not (value >= least and math.isfinite(value)):
            raise ConfigError(f"{name} must be at least {least}, got {value}")


def between(config: Any, low: float, high: float, *names: str) -> None:
    """Each named number lies in [low, high], ends included, else ConfigError."""
    for name, value in _given(config, names):
        if not low <= value <= high:
            raise ConfigError(f"{name} must be between {low} and {high}, got {value}")


def whole(config: Any, *names: str) -> None:
    """Each named number is a whole one, else ConfigError: from Python nothing else sees to that."""
    for name, value in _given(config, names):
        if not isinstance(value, int) or isinstance(value, bool):
            raise ConfigError(f"{name} must be a whole number, got {value!r}")


def _given(config: Any, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name in names if (value := getattr(config, name)) is not None)


def refuse_unused(config: Any, given: Collection[str], path: str = "") -> None:
    """ConfigError for the first of the keys given as options that does nothing beside the rest of the config.

    A config class tells them by a method `unused`: names of its fields, each with when it does nothing. Keys of files
    pass: presets and configs of runs are written whole, and an option beside them may silence some of theirs.
    """
    told: dict[str, str] = config.unused() if hasattr(config, "unused") else {}
    for name, when in told.items():
        if path + name in given:
            raise ConfigError(f"{path}{name} does nothing {when}", "Leave it out, or give what it is for.")
    for spec in dataclasses.fields(config):
        if dataclasses.is_dataclass(value := getattr(config, spec.name)):
            refuse_unused(value, given, f"{path}{spec.name}.")


def refuse_from_file(config: Any, given: Collection[str]) -> None:
    """ConfigError for what only a person may say, as an option, and a file does: code to be run. Files are handed on,
    and who takes one over has not read in it what it runs.

    A config class tells such fields by `typed`.
    """
    for name in getattr(config, "typed", ()):
        if getattr(config, name) is not None and name not in given:
            raise ConfigError(
                f"{name} names code to be run, which a config file may not", f"Give --{name} on the command line."
            )
