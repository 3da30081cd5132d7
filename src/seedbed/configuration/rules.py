"""Rules for `__post_init__`: each names the field, the parser puts the path before it. None is left out and passes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
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


def _given(config: Any, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name in names if (value := getattr(config, name)) is not None)
