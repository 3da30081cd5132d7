"""The corpus: documents split into training and validation, in compressed shards that describe themselves.

The source is read twice: once to hash and count, which decides what is kept and what is validation, once to write. So
memory holds a hash for each document and never the text.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from seedbed.data.config import PrepareConfig
from seedbed.data.sources import Document, paragraph_boundary, read_documents
from seedbed.errors import CorruptionError, DataError
from seedbed.progress import progress
from seedbed.runs import (
    Manifest,
    command,
    new_folder,
    open_folder,
    remake,
    verify_file,
    write_card,
    write_json,
    write_result,
)
from seedbed.shards import RowWriter, read_rows

SHARD_BYTES = 256 << 20
"""A shard ends once it holds this much uncompressed."""

SMALL_VALIDATION = 64 << 10
"""Validation may exceed its fraction up to this many bytes: whole documents are worth more than an exact share."""

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")


# Reading ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Corpus:
    """A corpus folder, opened."""

    folder: Path
    manifest: Manifest
    stats: dict[str, Any]
    """stats.json: how many documents and bytes each split has, and what was dropped."""

    @classmethod
    def open(cls, folder: Path | str, verify: Literal["sizes", "all"] = "sizes") -> Corpus:
        """Checks the folder and its files; see `open_folder` for the errors."""
        folder = Path(folder)
        manifest = open_folder(folder, "corpus", verify)
        for name in ("stats.json", *(f"{split}-00000.jsonl.zst" for split in SPLITS)):
            if name not in manifest.files:
                raise CorruptionError(f"{folder / 'manifest.json'} lists no {name}", remake(folder, "corpus"))
        verify_file(folder, manifest, "stats.json")
        return cls(folder, manifest, json.loads((folder / "stats.json").read_bytes()))

    def shards(self, split: Split) -> list[str]:
        """Names of a split's files, in order."""
        return [name for name in sorted(self.manifest.files) if name.startswith(f"{split}-")]

    def documents(self, split: Split) -> Iterator[Document]:
        """The documents of a split, in order. A shard that is not what was written is a CorruptionError."""
        for name in self.shards(split):
            verify_file(self.folder, self.manifest, name)
            for row in read_rows(self.folder / name):
                yield Document(row["text"], row["source"])


# Deciding -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Survey:
    """What the first reading found: size in bytes by SHA-256, without repeats, in order of first appearance."""

    sizes: dict[bytes, int]
    read: int
    empty: int
    repeated: int

    @property
    def hash(self) -> str:
        """One hash for all the text of the source."""
        return hashlib.sha256(b"".join(self.sizes)).hexdigest()


@dataclass(frozen=True)
class _Plan:
    """What the second reading does: a document in neither set is dropped."""

    train: set[bytes]
    val: set[bytes]
    cut: bytes | None = None
    """A document of which only the beginning is in the sample."""
    kept_bytes: int = 0
    """… this many bytes of it."""
    shared: bytes | None = None
    """A document whose tail is validation and the rest training, where no whole document was small enough."""
    tail_bytes: int = 0
    """… a tail of about this many bytes."""


def hash_source(source: str) -> str:
    """The hash that the manifest of a corpus made from this source names it by. Reads all of it; errors as there."""
    return _survey(source).hash


def _survey(source: str) -> _Survey:
    sizes: dict[bytes, int] = {}
    read = empty = repeated = 0
    with progress("reading") as advance:
        for document in read_documents(source):
            read += 1
            raw = document.text.encode()
            advance(len(raw))
            digest = hashlib.sha256(raw).digest()
            if not document.text.strip():
                empty += 1
            elif digest in sizes:
                repeated += 1
            else:
                sizes[digest] = len(raw)
    return _Survey(sizes, read, empty, repeated)


def _plan(survey: _Survey, config: PrepareConfig) -> _Plan:
    """Who is in the sample, and who is validation: both by hash, so that neither depends on names or order."""
    prefix = f"seedbed {config.seed} ".encode()
    order = sorted(survey.sizes, key=lambda digest: hashlib.sha256(prefix + digest).digest())
    sizes, cut, kept_bytes = survey.sizes, None, 0
    if config.max_bytes is not None:
        taken = 0
        for index, digest in enumerate(order):
            if taken + sizes[digest] > config.max_bytes:
                cut, kept_bytes = digest, config.max_bytes - taken
                sizes = {**sizes, digest: kept_bytes}
                order = order[: index + 1] if kept_bytes else order[:index]
                cut = cut if kept_bytes else None
                break
            taken += sizes[digest]
    total = sum(sizes[digest] for digest in order)
    target = config.validation_fraction * total
    # Whole documents in the order of their hash until the fraction is reached; one that goes far beyond is passed by.
    allowance = min(max(2 * target, SMALL_VALIDATION), total / 2)
    val: set[bytes] = set()
    val_bytes = 0
    for digest in order:
        if val_bytes >= target:
            break
        if val_bytes + sizes[digest] <= allowance and digest != cut:
            val.add(digest)
            val_bytes += sizes[digest]
    train = set(order) - val
    if val:
        return _Plan(train, val, cut, kept_bytes)
    shared = max(order, key=lambda digest: sizes[digest])
    return _Plan(train, val, cut, kept_bytes, shared, max(1, round(target)))


def _split(document: Document, digest: bytes, plan: _Plan) -> Iterator[tuple[Split, Document]]:
    """Where a document goes, or its two parts."""
    if digest == plan.cut:
        document = replace(document, text=document.text[: _cut_at(document.text, plan.kept_bytes)])
        if not document.text.strip():
            return
    if digest == plan.shared:
        size = len(document.text.encode())
        at = _cut_at(document.text, size - plan.tail_bytes)
        head, tail = document.text[:at], document.text[at:]
        if not head.strip() or not tail.strip():
            raise DataError(
                f"the source is too small to split: {size:,} bytes in one document",
                "Training and validation each need some text; bring more, or more than one document.",
            )
        yield "train", replace(document, text=head)
        yield "val", replace(document, text=tail)
    elif digest in plan.val:
        yield "val", document
    elif digest in plan.train:
        yield "train", document


def _cut_at(text: str, near_bytes: int) -> int:
    """A paragraph boundary near so many bytes of UTF-8."""
    if len(text) < 2:
        return len(text)
    return paragraph_boundary(text, len(text.encode()[: max(near_bytes, 0)].decode("utf-8", errors="ignore")))


# Writing ------------------------------------------------------------------------------------------------------------


class _Shards:
    """Writes one split's documents into numbered shards."""

    def __init__(self, folder: Path, split: Split):
        self.folder, self.split = folder, split
        self.documents = self.bytes = self.shards = 0
        self._writer: RowWriter | None = None

    def write(self, document: Document) -> None:
        if self._writer is None:
            self._writer = RowWriter(self.folder / f"{self.split}-{self.shards:05d}.jsonl.zst").__enter__()
            self.shards += 1
        self._writer.write({"text": document.text, "source": document.name})
        self.documents += 1
        self.bytes += len(document.text.encode())
        if self._writer.bytes >= SHARD_BYTES:
            self.close()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def prepare(config: PrepareConfig) -> dict[str, Any]:
    """Reads the source, splits it and writes the corpus folder; returns what result.json says.

    Empty documents and exact repeats are dropped and counted: a repeat might stand on both sides of the split. The same
    source and configuration give the same bytes.
    """
    started = time.monotonic()
    plain = {
        "validation_fraction": config.validation_fraction,
        "max_bytes": config.max_bytes,
        "seed": config.seed,
    }
    inputs: dict[str, Path | Manifest | str] = {}
    with new_folder(config.out, "corpus", inputs=inputs, config=plain) as folder:
        survey = _survey(config.source)
        inputs["source"] = survey.hash
        plan = _plan(survey, config)
        shards = {split: _Shards(folder, split) for split in SPLITS}
        _write(config.source, survey, plan, shards)
        for split in SPLITS:
            if not shards[split].documents:
                raise DataError(
                    f"{config.source} is too small: nothing is left for the {split} split", "Bring more text."
                )
        stats = _stats(survey, plan, shards)
        write_json(folder / "stats.json", stats)
        _write_card(folder, config, survey, stats)
        result = {
            "stage": "prepare",
            **stats,
            "seconds": round(time.monotonic() - started, 3),
            "out": str(config.out),
            "command": command("prepare", config),
        }
        write_result(folder, result)
    return result


def _write(source: str, survey: _Survey, plan: _Plan, shards: dict[Split, _Shards]) -> None:
    """The second reading. The source must still be what was surveyed."""
    missing = dict.fromkeys(survey.sizes)
    changed = DataError(f"{source} changed while it was read", "Run it again once nothing writes there.")
    with progress("writing", sum(survey.sizes.values())) as advance:
        for document in read_documents(source):
            if not document.text.strip():
                continue
            raw = document.text.encode()
            digest = hashlib.sha256(raw).digest()
            if digest not in survey.sizes:
                raise changed
            if digest not in missing:
                continue  # a repeat
            del missing[digest]
            for split, part in _split(document, digest, plan):
                shards[split].write(part)
            advance(len(raw))
    if missing:
        raise changed
    for split in SPLITS:
        shards[split].close()


def _stats(survey: _Survey, plan: _Plan, shards: dict[Split, _Shards]) -> dict[str, Any]:
    total = sum(shards[split].bytes for split in SPLITS)
    return {
        "documents": {"read": survey.read, **{split: shards[split].documents for split in SPLITS}},
        "bytes": {split: shards[split].bytes for split in SPLITS},
        "validation_fraction": round(shards["val"].bytes / total, 6),
        "validation": "tail of one document" if plan.shared else "whole documents",
        "dropped": {
            "empty": survey.empty,
            "repeated": survey.repeated,
            "beyond max_bytes": len(survey.sizes) - len(plan.train | plan.val),
        },
        "cut to fit max_bytes": 1 if plan.cut else 0,
    }


def _write_card(folder: Path, config: PrepareConfig, survey: _Survey, stats: dict[str, Any]) -> None:
    documents, size = stats["documents"], stats["bytes"]
    if config.source == "stdlib":
        source = "The text of Python's standard library (PSF licence), without its tests."
    else:
        source = f"`{Path(config.source).name}`, as it was given. Its licence is its owner's."
    sample = "Everything in the source."
    if config.max_bytes is not None:
        sample = (
            f"A sample of the whole: documents in the order of their hash until {config.max_bytes:,} bytes; "
            "the last one is cut to fit."
        )
    how = "by the SHA-256 of the document"
    if stats["validation"] != "whole documents":
        how = "the tail of the largest document, cut at a paragraph: no whole document was small enough"
    write_card(
        folder,
        "Corpus",
        {
            "What it is": [
                source,
                sample,
                *(f"{split}: {documents[split]:,} documents, {size[split]:,} bytes" for split in SPLITS),
                f"Validation is {stats['validation_fraction']:.2%} of the bytes ({how}).",
            ],
            "What was dropped": [f"{reason}: {count:,}" for reason, count in stats["dropped"].items()],
            "How it was made": [
                f"SHA-256 of the source's documents: `{survey.hash}`",
                f"validation_fraction {config.validation_fraction}, max_bytes {config.max_bytes}, seed {config.seed}",
            ],
            "How to use it": [
                "`seedbed tokenizer --corpus FOLDER --out TOKENIZER`, then `seedbed tokenize`",
                'Each line of the .jsonl.zst files is {"text": …, "source": …}.',
            ],
        },
        name="DATA_CARD.md",
    )
