"""A corpus with planted problems, and the judge of what `seedbed prepare` made of it.

`benchmarks/prepare.py` plants in books, `tests/data/test_planted.py` in made-up text. The oracle of similarity is the
definition: sets of runs of words, compared by brute force.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import zstandard

from seedbed.data.corpus import SPLITS, Corpus

SHINGLE, THRESHOLD = 5, 0.8

FOREIGN = [
    "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt und "
    "sollen einander im Geist der Brüderlichkeit begegnen. Jeder hat Anspruch auf die in dieser Erklärung verkündeten "
    "Rechte und Freiheiten ohne irgendeinen Unterschied, etwa nach Rasse, Hautfarbe, Geschlecht, Sprache, Religion, "
    "politischer oder sonstiger Überzeugung, nationaler oder sozialer Herkunft, Vermögen oder Geburt.",
    "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de "
    "conscience et doivent agir les uns envers les autres dans un esprit de fraternité. Chacun peut se prévaloir de "
    "tous les droits et de toutes les libertés proclamés dans la présente Déclaration, sans distinction aucune, "
    "notamment de race, de couleur, de sexe, de langue, de religion, d'opinion politique ou de toute autre opinion.",
    "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y "
    "conciencia, deben comportarse fraternalmente los unos con los otros. Toda persona tiene todos los derechos y "
    "libertades proclamados en esta Declaración, sin distinción alguna de raza, color, sexo, idioma, religión, "
    "opinión política o de cualquier otra índole, origen nacional o social, posición económica o nacimiento.",
    "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью и должны "
    "поступать в отношении друг друга в духе братства. Каждый человек должен обладать всеми правами и всеми "
    "свободами, провозглашенными настоящей Декларацией, без какого бы то ни было различия в отношении расы, цвета "
    "кожи, пола, языка, религии, политических или иных убеждений, национального или социального происхождения.",
]
"""Of the Universal Declaration of Human Rights."""

ACCENTED = "“Señor Müller’s café,” she said — naïve as ever — “is dearer than the façade of it would make you think.”"
"""A sentence whose letters and quotes show it when UTF-8 is read as Latin-1."""

FILE = "planted.jsonl"
LONGEST_ROW = 64 << 10
"""What `reading.longest_row` must be for the huge line among BAD."""

BAD = {
    "no text field": b'{"title": "a row of another kind"}',
    "wrong type": b'{"text": 12}',
    "null": b'{"text": null}',
    "NUL byte": b'{"text": "a\\u0000b"}',
    "invalid JSON": b'{"text": "it breaks off',
    "not UTF-8": b'{"text": "caf\xe9"}',
    "record too long": b'{"text": "%s"}' % (b"huge " * (LONGEST_ROW // 4)),
}
"""Rows that cannot be read, by the reason that they are to be counted under."""

PRIVATE = ("email", "phone", "ip", "card", "key")


@dataclass(frozen=True)
class Row:
    """A planted row. A copy names the text it was made from."""

    kind: str
    """clean, foreign, junk, contaminated, private, mojibake; and of copies exact, recased, near, apart, the last with
    more changes than make a duplicate."""

    text: str

    kept_as: str | None
    """What the corpus shall hold; None: nothing of it."""

    origin: str | None = None


def plant(texts: Sequence[str], questions: Sequence[str], each: int, seed: int = 0) -> list[Row]:
    """Rows in random order: `each` of every kind and every secret, and the rest of `texts` clean. A text serves once:
    11 × `each` are needed, such as cleaning leaves as they are. `questions` are of the benchmark files."""
    draw = random.Random(seed)
    left = list(texts)
    draw.shuffle(left)
    vocabulary = sorted({word for text in left[:100] for word in re.findall(r"\b[a-z]{3,9}\b", text)})
    rows: list[Row] = []
    for i in range(each):
        exact, recased, near, apart = (left.pop() for _ in range(4))
        for kind, text, copy in (
            ("exact", exact, exact),
            ("recased", recased, recased.lower().replace(" ", "  ")),
            ("near", near, edited(near, THRESHOLD + 0.005 + 0.185 * i / each, vocabulary, draw)),
            ("apart", apart, edited(apart, THRESHOLD - 0.01 - 0.34 * i / each, vocabulary, draw)),
        ):
            rows += Row("clean", text, text), Row(kind, copy, copy, text)
        for private in PRIVATE:
            begin, end = left.pop() + "\nWhoever has found it may write to ", " until the evening."
            rows.append(Row("private", begin + secret(private, draw) + end, f"{begin}<{private}>{end}"))
        accented = f"{left.pop()}\n{ACCENTED}"
        rows.append(Row("mojibake", accented.encode().decode("latin-1"), accented))
        question = draw.choice(questions)
        rows.append(Row("contaminated", f"{left.pop()}\n{question.upper() if i % 2 else question}", None))
        rows.append(Row("foreign", f"{FOREIGN[i % len(FOREIGN)]} ({i})", None))
        rows.append(Row("junk", "".join(chr(draw.randrange(1, 256)) for _ in range(2_000)), None))
    rows += [Row("clean", text, text) for text in left]
    draw.shuffle(rows)
    return rows


def edited(text: str, similarity: float, vocabulary: Sequence[str], draw: random.Random) -> str:
    """The text with other words in so many places, evenly apart, that its Jaccard similarity is about as asked for."""
    places = list(re.finditer(r"\w+", text))
    # A word lies in SHINGLE runs: of n runs, SHINGLE·k differ, on both sides, where k words do.
    runs = len(places) - SHINGLE + 1
    count = max(1, int(runs * (1 - similarity) / (1 + similarity) / SHINGLE))
    parts, done = [], 0
    for i in range(count):
        place = places[(2 * i + 1) * len(places) // (2 * count)]
        parts += text[done : place.start()], draw.choice([word for word in vocabulary if word != place[0].lower()])
        done = place.end()
    return "".join(parts) + text[done:]


def secret(kind: str, draw: random.Random) -> str:
    """Made up, and of the form that the real ones have."""
    figures = "".join(draw.choices("0123456789", k=15))
    if kind == "email":
        return f"ada.lovelace+{figures[:6]}@post.example.org"
    if kind == "phone":
        return f"+44 20 7{figures[:3]} {figures[3:7]}"
    if kind == "ip":
        return ".".join(str(draw.randrange(1, 255)) for _ in range(4))
    if kind == "card":
        number = "4" + figures[:14]
        twice = sum(sum(divmod(2 * int(figure), 10)) for figure in number[::-2])
        number += str(-(twice + sum(map(int, number[-2::-2]))) % 10)
        return " ".join(number[i : i + 4] for i in range(0, 16, 4))
    return "AKIA" + "".join(draw.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", k=16))


def write_source(folder: Path, rows: Sequence[Row]) -> dict[str, int]:
    """Writes the rows, with BAD behind them, and a compressed file that is cut off; returns what is bad, by reason."""
    folder.mkdir()
    lines = [json.dumps({"text": row.text}).encode() for row in rows]
    (folder / FILE).write_bytes(b"\n".join([*lines, *BAD.values(), b""]))
    stream = zstandard.ZstdCompressor().compressobj()
    block = stream.compress(b'{"text": "Cut."}\n' * 9) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    (folder / "cut.jsonl.zst").write_bytes(
        block
    )  # without an end; what is before it can be read, or one file in two were lost
    return dict(sorted([*((reason, 1) for reason in BAD), ("broken file", 1)]))


def judge(rows: Sequence[Row], kept: dict[int, str]) -> dict[str, Any]:
    """Figures of a corpus; `kept` are its texts by the line of `rows`, from 1, that they come from.

    `recall`: share of the planted near copies, at THRESHOLD or above, of which one went. `false_drops`: share of those
    dropped for no other reason that are similar to no other row. `missed`: rows that should have gone, or been mended,
    and are not, by kind. `lost`: rows that are gone with all that is like them.
    """
    texts = [row.text if row.kept_as is None else row.kept_as for row in rows]
    similar = similar_pairs(texts, 0.3)
    number = {row.text: i for i, row in enumerate(rows) if row.kind == "clean"}
    near = [(number[row.origin], i) for i, row in enumerate(rows) if row.kind in ("near", "apart") and row.origin]
    near = [(a, b) for a, b in near if similar.get((min(a, b), max(a, b)), 0) >= THRESHOLD]
    stays = [i + 1 in kept for i in range(len(rows))]
    alike: dict[int, set[int]] = defaultdict(set)
    for (a, b), similarity in similar.items():
        if similarity >= THRESHOLD:
            alike[a].add(b)
            alike[b].add(a)
    dropped = [i for i, row in enumerate(rows) if row.kept_as is not None and not stays[i]]
    missed: Counter[str] = Counter()
    for i, row in enumerate(rows):
        if row.kept_as is None:
            missed[row.kind] += stays[i]
        elif stays[i] and row.kind in ("mojibake", "private", "clean"):
            missed[row.kind] += kept[i + 1].strip() != row.kept_as.strip()
        elif row.kind in ("exact", "recased") and row.origin:
            missed[row.kind] += stays[i] and stays[number[row.origin]]
    return {
        "rows": len(rows),
        "near_pairs": len(near),
        "recall": round(sum(not (stays[a] and stays[b]) for a, b in near) / len(near), 4),
        "dropped": len(dropped),
        "false_drops": round(sum(not alike[i] for i in dropped) / max(len(dropped), 1), 4),
        "lost": sum(not any(stays[other] for other in alike[i]) for i in dropped if alike[i]),
        "missed": {kind: count for kind, count in sorted(missed.items()) if count},
    }


def similar_pairs(texts: Sequence[str], least: float) -> dict[tuple[int, int], float]:
    """Jaccard similarity of the sets of shingles of every pair that has at least `least`, by their definition."""
    places: dict[tuple[str, ...], list[int]] = defaultdict(list)
    sizes = []
    for i, text in enumerate(texts):
        words = re.findall(r"\w+", text.casefold())
        shingles = {tuple(words[start : start + SHINGLE]) for start in range(max(len(words) - SHINGLE + 1, 1))}
        sizes.append(len(shingles))
        for shingle in shingles:
            places[shingle].append(i)
    shared = Counter(pair for owners in places.values() if len(owners) > 1 for pair in combinations(owners, 2))
    similar = {(a, b): count / (sizes[a] + sizes[b] - count) for (a, b), count in shared.items()}
    return {pair: similarity for pair, similarity in similar.items() if similarity >= least}


def read_kept(folder: Path) -> dict[int, str]:
    """The texts of a corpus by their line in FILE; parts of a line are put together."""
    corpus = Corpus.open(folder, verify="all")
    parts: dict[int, dict[int, str]] = defaultdict(dict)
    for split in SPLITS:
        for document in corpus.documents(split):
            name, _, place = document.name.partition(":")
            line, _, part = place.partition("#")
            if name == FILE:
                parts[int(line)][int(part or 1)] = document.text
    return {line: "".join(text for _, text in sorted(texts.items())) for line, texts in parts.items()}
