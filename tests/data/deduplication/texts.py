"""Texts made by a seeded generator, copies with known edits, and the brute force that the search is held against."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from seedbed.data.config import DeduplicationConfig
from seedbed.data.deduplication.duplicates import find_duplicates
from seedbed.data.deduplication.signer import Signer
from seedbed.data.deduplication.verdicts import Verdicts
from seedbed.data.shingles import words


def some_words(chance: random.Random, count: int) -> list[str]:
    """Words as frequent as in a language: few stand often, most seldom (Zipf)."""
    vocabulary = [f"{'bcdfglmnrst'[i % 11]}{'aeiou'[i % 5]}{'lnrst'[i % 7 % 5]}{i:x}" for i in range(4000)]
    return chance.choices(vocabulary, [1 / (rank + 1) for rank in range(len(vocabulary))], k=count)


def edited(chance: random.Random, tokens: Sequence[str], edits: int) -> list[str]:
    """The words with `edits` of them replaced by new ones, which costs up to 5 shingles each."""
    copy = list(tokens)
    for place in chance.sample(range(len(copy)), edits):
        copy[place] = f"edit{chance.randrange(10**9)}"
    return copy


def shingle_set(text: str, n: int) -> frozenset[tuple[str, ...]]:
    """The runs of n words of a text, by definition: the oracle of signing."""
    tokens = words(text)
    return frozenset(tuple(tokens[start : start + n]) for start in range(max(len(tokens) - n + 1, bool(tokens))))


def similarity(left: frozenset, right: frozenset) -> float:
    return len(left & right) / len(left | right) if left or right else 0.0


def search(
    texts: Sequence[str], config: DeduplicationConfig, folder: Path, unit: int = 50, memory: int = 256 << 20
) -> Verdicts:
    """Signs the texts in units of so many documents, and finds their duplicates."""
    folder.mkdir(parents=True)
    signer = Signer(config)
    paths = []
    for start in range(0, len(texts), unit):
        paths.append(folder / f"{start}.signatures")
        signer.sign(texts[start : start + unit]).save(paths[-1])
    return find_duplicates(paths, config, folder / "scratch", memory)


def results(texts: Sequence[str], verdicts: Verdicts, unit: int = 50) -> list[tuple[str | None, str]]:
    """The reason and the rest of every text."""
    units = [verdicts.of(number) for number in range(len(verdicts.units))]
    return [(units[i // unit].reason(i % unit), units[i // unit].rest(i % unit, text)) for i, text in enumerate(texts)]


def reasons(texts: Sequence[str], verdicts: Verdicts, unit: int = 50) -> list[str | None]:
    return [reason for reason, _ in results(texts, verdicts, unit)]
