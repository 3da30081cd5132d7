"""What can happen to a folder on a disk: seeded, and no case twice."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

Files = dict[str, bytes]
"""What a folder holds, by name."""


def contents(folder: Path) -> Files:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# To the bytes of one file


def flip(raw: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice([1, 1, 2, 16])):
        raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)


def truncate(raw: bytearray, chance: random.Random) -> None:
    del raw[chance.randrange(len(raw)) :]


def extend(raw: bytearray, chance: random.Random) -> None:
    raw += chance.choice([chance.randbytes, bytes])(chance.choice([1, 2, 8, 64, 4096]))


def zero(raw: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(raw))
    length = min(chance.choice([1, 8, 64, 4096]), len(raw) - start)
    raw[start : start + length] = bytes(length)


def swap(raw: bytearray, chance: random.Random) -> None:
    """Two stretches change places."""
    size = min(chance.choice([1, 8, 64, 4096]), len(raw) // 2)
    one, other = (place * size for place in chance.sample(range(len(raw) // size), 2))
    raw[one : one + size], raw[other : other + size] = raw[other : other + size], raw[one : one + size]


def shift(raw: bytearray, chance: random.Random) -> None:
    """As long as before, but from somewhere on everything is moved."""
    raw.insert(chance.randrange(len(raw)), chance.randrange(256))
    del raw[-1]


# To the files of a folder, of which there is another one of its kind


def lose(files: Files, other: Files, chance: random.Random) -> None:
    for name in chance.sample(sorted(files), chance.choice([1, 1, 2, 3])):
        del files[name]


def rename(files: Files, other: Files, chance: random.Random) -> None:
    """To a name that is free."""
    name = chance.choice(sorted(files))
    files[f"{chance.randrange(10**6)}-{name.rpartition('/')[-1]}"] = files.pop(name)


def confuse(files: Files, other: Files, chance: random.Random) -> None:
    """Two files, or three, trade their names."""
    names = chance.sample(sorted(files), chance.choice([2, 2, 3]))
    files.update(zip(names, [files[name] for name in [*names[1:], names[0]]], strict=True))


def mix(files: Files, other: Files, chance: random.Random) -> None:
    """Some files, its manifest perhaps among them, become those of the other folder: an old manifest with new files."""
    names = chance.sample(sorted(files), chance.randrange(1, len(files)))
    files.update({name: other[name] for name in names})


def add(files: Files, other: Files, chance: random.Random) -> None:
    """A file of the other folder, or one of its own, comes in under a name that nobody promised."""
    name = chance.choice(sorted(other))
    files[f"{chance.randrange(10**6)}-{name.rpartition('/')[-1]}"] = chance.choice([other, files])[name]


def to_one_file(change: Callable[[bytearray, random.Random], None]) -> Callable[[Files, Files, random.Random], None]:
    def apply(files: Files, other: Files, chance: random.Random) -> None:
        name = chance.choice(sorted(files))
        raw = bytearray(files[name])
        change(raw, chance)
        files[name] = bytes(raw)

    return apply


DAMAGES = {
    **{change.__name__: to_one_file(change) for change in (flip, truncate, extend, zero, swap, shift)},
    **{change.__name__: change for change in (lose, rename, confuse, mix, add)},
}


@dataclass(frozen=True)
class Damage:
    """One that was done, to a copy of the folder."""

    kind: str
    folder: Path
    harmed: frozenset[str]
    """Files that are gone or hold other bytes than they did; when there is none, the damage must do no harm."""


def damages(folder: Path, other: Path, copy: Path, *, count: int, seed: int) -> Iterator[Damage]:
    """Damages `copy`, which is made as `folder` anew each time. `other` is a folder of the same kind with other content
    and the same names. Every kind comes in turn; no result comes twice."""
    chance, seen = random.Random(seed), set()
    before, beside = contents(folder), contents(other)
    assert before.keys() == beside.keys() and before != beside
    for kind in itertools.cycle(DAMAGES):
        after = dict(before)
        DAMAGES[kind](after, beside, chance)
        result = frozenset(after.items())
        if after in (before, beside) or result in seen:
            continue  # zeros on zeros, or all that can be lost of so few files was lost
        seen.add(result)
        shutil.rmtree(copy, ignore_errors=True)
        for name, raw in after.items():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(raw)
        yield Damage(kind, copy, frozenset(name for name, raw in before.items() if after.get(name) != raw))
        if len(seen) == count:
            return
