"""Damage to JSON files by chance, and a bound on memory while they are read."""

from __future__ import annotations

import contextlib
import copy
import json
import random
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 10**7, 2**31, 4 * 10**9, 2**63, 10**30, 10**400, 0.5, 1e300, -0.0),
    *(float("nan"), float("inf"), "", "x", "\ud800", "\0", "../x", "9" * 300, [], [1], [[]], {}, {"a": 1}, {"": {}}),
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def damaged(text: str, chance: random.Random) -> bytes:
    """A JSON text with one thing about it changed: a value, a missing or added key, the end cut off, a depth."""
    if chance.random() < 0.1:
        return text.encode()[: chance.randrange(len(text))]
    value = copy.deepcopy(json.loads(text))
    container, key = chance.choice(list(places(value)))
    how = chance.random()
    if how < 0.15:
        del container[key]
    elif how < 0.2 and isinstance(container, dict):
        container[chance.choice(["more", "", "\ud800"])] = chance.choice(VALUES)
    elif how < 0.25:
        return json.dumps(value).replace("{", '{"deep": ' + "[" * 5000 + "]" * 5000 + ", ", 1).encode()
    else:
        container[key] = chance.choice(VALUES)
    return json.dumps(value).encode()


def damage(file: Path, chance: random.Random) -> None:
    file.write_bytes(damaged(file.read_text(encoding="utf-8"), chance))


@contextlib.contextmanager
def memory_within(more: int) -> Iterator[None]:
    """No more than so many bytes can be taken from the system inside: who asks for them gets an error."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
