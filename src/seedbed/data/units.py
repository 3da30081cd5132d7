"""Units of work: some blocks of a source, read, cleaned and signed in one go, and kept on disk once done.

The result of a unit depends on its raw bytes and on the plan alone. So it is named by their hash, and a run that was
stopped does again only what it had not finished, whatever the moment, the number of workers, or the file it was in.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedbed.data.cleaning.cleaner import Cleaner
from seedbed.data.config import CleaningConfig, DeduplicationConfig, PrepareConfig, ReadingConfig
from seedbed.data.deduplication.signer import Signer
from seedbed.data.sources.blocks import Block
from seedbed.data.sources.records import Reject, read_documents
from seedbed.data.splitting import PARENT, parent_of
from seedbed.errors import CorruptionError, DataError
from seedbed.runs import read_json, sha256_file, sha256_json, write_json, writing
from seedbed.shards import RowWriter, read_lines

RULES = 2
"""Raised when the same plan gives other results than before: units of an older seedbed are then made again."""

DOCUMENT = np.dtype([("parent", PARENT), ("bytes", "<u4")])
"""What a unit keeps of each document beside its text."""


@dataclass(frozen=True)
class Plan:
    """What the result of a unit depends on, beside its raw bytes."""

    reading: ReadingConfig
    clean: CleaningConfig
    deduplicate: DeduplicationConfig
    hash: str
    """SHA-256 of the plan and of the benchmark files it names, as they were when the run began."""

    @classmethod
    def of(cls, config: PrepareConfig) -> Plan:
        """DataError when a benchmark file cannot be read."""
        clean = asdict(config.clean) | {"benchmarks": [_file_hash(path) for path in config.clean.benchmarks]}
        reading = asdict(replace(config.reading, max_bad_fraction=0))  # judged when all is read
        parts = [RULES, reading, clean, asdict(config.deduplicate)]
        return cls(config.reading, config.clean, config.deduplicate, sha256_json(parts))


def _file_hash(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


@dataclass(frozen=True)
class Unit:
    """Some blocks, in the order of the source."""

    number: int
    blocks: tuple[Block, ...]

    @property
    def bytes(self) -> int:
        return sum(len(block.data) for block in self.blocks)

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 of what the blocks are and hold."""
        digest = hashlib.sha256()
        for block in self.blocks:
            digest.update(f"{block.name}\0{block.format}\0{block.first}\0{block.whole}\0{len(block.data)}\0".encode())
            digest.update(block.data)
        return digest.hexdigest()


def cut_units(blocks: Iterable[Block], unit_bytes: int) -> Iterator[Unit]:
    """Groups blocks, in order, into units of about `unit_bytes` or one block, if that is larger."""
    number, held, size = 0, list[Block](), 0
    for block in blocks:
        if held and size + len(block.data) > unit_bytes:
            yield Unit(number, tuple(held))
            number, held, size = number + 1, [], 0
        held.append(block)
        size += len(block.data)
    if held:
        yield Unit(number, tuple(held))


@dataclass(frozen=True)
class UnitResult:
    """What is on disk of a unit that was done: documents, their parents and signatures, counts and rejects."""

    folder: Path
    number: int

    @property
    def name(self) -> str:
        return f"{self.number:08d}"

    @property
    def signatures(self) -> Path:
        return self.folder / f"{self.name}.signatures"

    @property
    def _rows(self) -> Path:
        return self.folder / f"{self.name}.jsonl.zst"

    @property
    def _parents(self) -> Path:
        return self.folder / f"{self.name}.npy"

    @property
    def _report(self) -> Path:
        return self.folder / f"{self.name}.json"

    def report(self) -> dict[str, Any]:
        """hash, records, bytes, counts by reason, rejects. CorruptionError when it is not there, or broken."""
        return read_json(self._report)

    def documents(self) -> NDArray[np.void]:
        """Parent and size of every document, dtype DOCUMENT."""
        return np.load(self._parents, allow_pickle=False)

    def rows(self) -> Iterator[bytes]:
        """The documents, in order, as lines of JSON."""
        for _, line in read_lines(self._rows):
            yield line

    def is_done(self, unit: Unit, plan: Plan) -> bool:
        """Whether these are the results of this unit under this plan. The report is written last."""
        try:
            return bool(self.report()["hash"] == _identity(unit, plan))
        except (CorruptionError, KeyError):
            return False


def _identity(unit: Unit, plan: Plan) -> str:
    return sha256_json([plan.hash, unit.hash])


def work(unit: Unit, plan: Plan, folder: Path) -> int:
    """Does a unit and writes its result, the report last; returns its number. Runs in a worker."""
    cleaner, signer = _tools(plan)
    result = UnitResult(folder, unit.number)
    with writing(folder):  # while its files change no old report may vouch for them
        result._report.unlink(missing_ok=True)
    counts: Counter[str] = Counter()
    rejects: list[Reject] = []
    texts: list[str] = []
    parents: list[bytes] = []
    with RowWriter(result._rows) as rows:
        for item in (item for block in unit.blocks for item in read_documents(block, plan.reading)):
            counts["records"] += 1
            if isinstance(item, Reject):
                rejects.append(item)
                continue
            parent = parent_of(item.text)
            parts = cleaner.clean(item.text, counts) if item.text.strip() else []
            counts["dropped: empty"] += not item.text.strip()
            for i, text in enumerate(parts, start=1):
                rows.write({"text": text, "source": item.name if len(parts) == 1 else f"{item.name}#{i}"})
                texts.append(text)
                parents.append(parent)
    documents = np.zeros(len(texts), DOCUMENT)
    documents["parent"] = np.frombuffer(b"".join(parents), PARENT)
    documents["bytes"] = [len(text.encode()) for text in texts]
    with writing(result._parents), open(result._parents, "wb") as file:
        np.save(file, documents, allow_pickle=False)
    signer.sign(texts).save(result.signatures)
    report = {
        "hash": _identity(unit, plan),
        "bytes": unit.bytes,
        "records": counts.pop("records", 0),
        "counts": {reason: count for reason, count in sorted(counts.items()) if count},
        "rejects": [asdict(reject) for reject in rejects],
    }
    write_json(result._report, report)
    return unit.number


_kept: dict[str, tuple[Cleaner, Signer]] = {}


def _tools(plan: Plan) -> tuple[Cleaner, Signer]:
    """Cleaner and signer of a plan; made once in a process, since they load models."""
    if plan.hash not in _kept:
        _kept.clear()
        _kept[plan.hash] = Cleaner(plan.clean), Signer(plan.deduplicate)
    return _kept[plan.hash]
