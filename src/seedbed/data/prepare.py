"""`seedbed prepare`: a source, in units of work, becomes a corpus.

Reading → units (read, cleaned, signed by any number of workers) → verdicts on duplicates → split → shards. Everything
after the units is decided by content and order of names, so the corpus is the same bytes for any number of workers, on
one machine or many, stopped and begun again or not.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from seedbed.data.config import PrepareConfig
from seedbed.data.corpus import SPLITS, ShardWriter, Split
from seedbed.data.deduplication.duplicates import find_duplicates
from seedbed.data.deduplication.verdicts import KEPT, Verdicts
from seedbed.data.executors import EXECUTORS
from seedbed.data.sources.blocks import Block, read_blocks
from seedbed.data.sources.files import ignored_files
from seedbed.data.sources.records import Document
from seedbed.data.splitting import SplitPlan, plan_split
from seedbed.data.units import DOCUMENT, Plan, Unit, UnitResult, cut_units, work
from seedbed.devices import count_cores
from seedbed.errors import ConfigError, DataError, SeedbedError, StorageError
from seedbed.progress import progress
from seedbed.runs import (
    command,
    finished_result,
    lock,
    new_folder,
    parse_json,
    write_card,
    write_json,
    write_result,
    writing,
)
from seedbed.shards import read_rows, render_row

SAMPLE_ROWS = 3
"""Documents that the card shows the beginning of."""

KINDS = ("dropped", "split", "removed", "stripped", "mended", "masked")
"""What a reason that is counted begins with."""

REJECTS = "rejects.jsonl"

JUDGED_EARLY = 100_000
"""Records after which a source with too many bad ones is not read to its end."""


def prepare(config: PrepareConfig) -> dict[str, Any]:
    """Makes the corpus folder `config.out`; returns what result.json says.

    The same source and plan give the same bytes. What is done when the process is stopped is kept in the folder
    `.OUT.units` beside it, and removed when the corpus is whole. Errors: DataError for a source that cannot be read,
    has too many bad records or too little text; ConfigError for an `out` that is taken; StorageError.
    """
    started = time.monotonic()
    out, settings = Path(os.path.realpath(config.out)), _settings(config)
    units_folder = out.with_name(f".{out.name}.units")  # hidden: it may lie in a folder of texts
    done = finished_result(config.out, "corpus", lambda: _inputs(config, hash_source(config)), settings)
    if done is not None:
        if units_folder.is_dir():  # left by a run that was killed once the corpus was in its place
            with contextlib.suppress(StorageError), lock(units_folder):
                shutil.rmtree(units_folder, ignore_errors=True)
        return done
    inputs: dict[str, Any] = {}
    with new_folder(config.out, "corpus", inputs=inputs, config=settings) as folder, _kept(units_folder):
        stats = _make(config, units_folder, folder, inputs)
        result = {
            "stage": "prepare",
            **stats,
            "seconds": round(time.monotonic() - started, 3),
            "out": str(config.out),
            "command": command("prepare", config),
        }
        write_result(folder, result)
    shutil.rmtree(units_folder, ignore_errors=True)  # only now is the corpus in its place
    return result


@contextlib.contextmanager
def _kept(units_folder: Path) -> Iterator[None]:
    """Holds the folder of units for this process. It outlives a stop and a full disk, not an error of the source or the
    plan, after which nothing of it could be used."""
    try:
        with lock(units_folder):
            try:
                yield
            except SeedbedError as error:
                if isinstance(error, DataError | ConfigError) or not any(units_folder.glob("*.json")):
                    for path in units_folder.iterdir():
                        if path.is_dir():
                            shutil.rmtree(path)
                        elif not path.name.startswith(".lock"):
                            path.unlink()
                raise
    finally:
        if units_folder.is_dir() and {path.name for path in units_folder.iterdir()} <= {".lock"}:
            shutil.rmtree(units_folder, ignore_errors=True)


def hash_source(config: PrepareConfig) -> str:
    """The hash by which the manifest of a corpus of this plan names its source. Reads all of it; errors as there."""
    source = _Source(config)
    for _ in source.blocks():
        pass
    return source.digest.hexdigest()


def _settings(config: PrepareConfig) -> dict[str, Any]:
    """What the content of the corpus depends on, for its manifest."""
    from seedbed.configuration import to_dict

    left_out = ("source", "out", "workers", "executor")
    settings = {key: value for key, value in to_dict(config).items() if key not in left_out}
    del settings["clean"]["benchmarks"]  # inputs, named by their hashes
    return settings


def _make(config: PrepareConfig, units_folder: Path, folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    source = _Source(config)
    units = _work(source, config, units_folder)
    inputs |= _inputs(config, source.digest.hexdigest())
    source.refuse_unread()
    counts, records, rejects = _judge(config, units, folder)
    verdicts = find_duplicates([unit.signatures for unit in units], config.deduplicate, units_folder)
    plan = _plan(config, units, verdicts)
    shards, removed = _write(units, verdicts, plan, folder)
    for split in SPLITS:
        if not shards[split].documents:
            raise DataError(
                f"{config.source} is too small to split: nothing is left for the {split} split", "Bring more text."
            )
    counts += removed + _repeats(verdicts)
    largest = {kind: verdicts.counts[f"largest_{kind}"] for kind in ("exact", "near")}
    stats = {"ignored": ignored_files(config.source), "broken_files": source.broken}
    stats |= _stats(records, rejects, counts, largest, plan, shards)
    write_json(folder / "stats.json", stats)
    _write_card(folder, config, inputs["source"], stats)
    return stats


def _inputs(config: PrepareConfig, source_hash: str) -> dict[str, Any]:
    return {"source": source_hash, **{f"benchmark {path.name}": path for path in config.clean.benchmarks}}


# Reading -------------------------------------------------------------------------------------------------------------


class _Source:
    """Reads a source once, and knows then what is to be said of it as a whole."""

    def __init__(self, config: PrepareConfig):
        self.config = config
        self.digest = hashlib.sha256()
        """Of what it holds."""
        self.broken: dict[str, str] = {}
        """What is wrong with files that cannot be read to their end, and how much of them was."""
        self._files, self._unread = 0, list[str]()

    def blocks(self) -> Iterator[Block]:
        """All of it, in order."""
        before = None
        for block in read_blocks(self.config.source, self.config.reading, self.config.unit_bytes):
            self.digest.update(block.data)
            if block.name != before:
                self._files += 1
            if block.is_broken:
                self.broken[block.name] = block.data.decode().partition("\n")[2]
                self._unread += [block.name] if block.name != before else []
            before = block.name
            yield block

    def refuse_unread(self) -> None:
        """Says aloud which files are broken. Too many of which nothing could be read are a DataError: one such file
        counts as one bad record, and may have held a million."""
        for name, problem in self.broken.items():
            print(f"seedbed: {name}: {problem}", file=sys.stderr)
        if len(self._unread) > self.config.reading.max_bad_fraction * self._files:
            name, share = self._unread[0], len(self._unread) / self._files
            raise DataError(
                f"{name}: {self.broken[name]} ({len(self._unread):,} of {self._files:,} files like this)",
                f"Copy them again, take them away, or accept so many: --reading.max_bad_fraction {share:.2g}",
            )


# Units ---------------------------------------------------------------------------------------------------------------


def _work(source: _Source, config: PrepareConfig, folder: Path) -> list[UnitResult]:
    """Does the units that are not done, and returns the results of all."""
    plan, total = Plan.of(config), 0
    with progress("cleaning") as advance:

        def missing() -> Iterator[Unit]:
            nonlocal total
            for unit in cut_units(source.blocks(), config.unit_bytes):
                total = unit.number + 1
                if UnitResult(folder, unit.number).is_done(unit, plan):
                    advance(unit.bytes)
                else:
                    yield unit

        function = functools.partial(work, plan=plan, folder=folder)
        seen = Counter[str]()
        judged = 0
        for number in EXECUTORS[config.executor](function, missing(), config.workers or count_cores()):
            advance(UnitResult(folder, number).report()["bytes"])
            for before in range(judged, number + 1):  # those that were done in an earlier sitting too
                report = UnitResult(folder, before).report()
                seen.update(records=report["records"], bad=len(report["rejects"]))
            judged = number + 1
            if seen["records"] >= JUDGED_EARLY and seen["bad"] > config.reading.max_bad_fraction * seen["records"]:
                total = number + 1
                break
    if not total:
        raise DataError(f"{config.source} is empty: it holds no text")
    return [UnitResult(folder, number) for number in range(total)]


def _judge(config: PrepareConfig, units: list[UnitResult], folder: Path) -> tuple[Counter[str], int, Counter[str]]:
    """Counts by reason, records, and bad ones by reason, written to rejects.jsonl. Too many are a DataError."""
    counts, records, bad = Counter[str](), 0, Counter[str]()
    first: dict[str, Any] | None = None
    # Not compressed as the shards are, so that `*.jsonl.zst` is the corpus.
    with writing(folder / REJECTS), open(folder / REJECTS, "wb") as file:
        for unit in units:
            report = unit.report()
            records += report["records"]
            counts.update(report["counts"])
            for reject in report["rejects"]:
                first = first or reject
                bad[reject["reason"]] += 1
                file.write(render_row(reject, reject["name"]) + b"\n")
    if first and bad.total() > config.reading.max_bad_fraction * records:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in bad.most_common())
        # A single file is its own name.
        where = f"{config.source}/{first['name']}" if os.path.isdir(config.source) else first["name"]
        raise DataError(
            f"{where}: {first['detail']} ({bad.total():,} of {records:,} records cannot be read: {reasons})",
            f"Mend the source, or accept so many: --reading.max_bad_fraction {bad.total() / records:.2g}",
        )
    if not bad:
        (folder / REJECTS).unlink()
    if records - bad.total() == counts["dropped: empty"]:
        raise DataError(f"{config.source} is empty: it holds no text")
    return counts, records, bad


# Deciding and writing ------------------------------------------------------------------------------------------------


def _plan(config: PrepareConfig, units: list[UnitResult], verdicts: Verdicts) -> SplitPlan:
    documents = [unit.documents()[verdicts.of(unit.number).drops == KEPT] for unit in units]
    kept = np.concatenate([np.zeros(0, DOCUMENT), *documents])
    return plan_split(kept["parent"], kept["bytes"], config.validation_fraction, config.max_bytes, config.seed)


def _repeats(verdicts: Verdicts) -> Counter[str]:
    """What deduplication did, by reason."""
    dropped = {f"dropped: {reason} duplicate": verdicts.counts[reason] for reason in ("exact", "near")}
    removed = {f"removed: {what}": verdicts.counts[what] for what in ("lines", "paragraphs", "characters")}
    return Counter(dropped | removed)


def _write(
    units: list[UnitResult], verdicts: Verdicts, plan: SplitPlan, folder: Path
) -> tuple[dict[Split, ShardWriter], Counter[str]]:
    """Writes the documents that stay, in the order of the units; returns the shards and what was dropped meanwhile."""
    shards = {split: ShardWriter(folder, split) for split in SPLITS}
    dropped = Counter[str]()
    with progress("writing", len(units), "units") as advance:
        for unit in units:
            verdict = verdicts.of(unit.number)
            documents = unit.documents()
            for i, line in enumerate(unit.rows()):
                if verdict.reason(i):
                    continue
                parent = documents["parent"][i].tobytes()
                side = plan.side(parent)
                if side is not None and verdict.is_whole(i):  # nearly all: their rows go over as they are
                    shards[side].write_row(line, int(documents["bytes"][i]))
                    continue
                row = parse_json(line)
                text = verdict.rest(i, row["text"])
                if not text.strip():
                    dropped["dropped: nothing but repeated lines"] += 1
                    continue
                placed = False
                for split, part in plan.place(parent, text):
                    shards[split].write(Document(part, row["source"]))
                    placed = True
                dropped["dropped: beyond max_bytes"] += not placed
            advance(1)
    for split in SPLITS:
        shards[split].close()
    return shards, dropped


# Telling -------------------------------------------------------------------------------------------------------------


def _stats(
    records: int,
    bad: Counter[str],
    counts: Counter[str],
    largest: dict[str, int],
    plan: SplitPlan,
    shards: dict[Split, ShardWriter],
) -> dict[str, Any]:
    """stats.json: every count by its kind, which stands before the colon of a reason; `largest`: how many documents the
    largest group of duplicates has."""
    total = sum(shards[split].bytes for split in SPLITS)
    by_kind: dict[str, dict[str, int]] = {kind: {} for kind in KINDS}
    for reason, count in sorted(counts.items()):
        kind, _, what = reason.partition(": ")
        if count:
            by_kind[kind][what] = count
    return {
        "records": records,
        "documents": {split: shards[split].documents for split in SPLITS},
        "bytes": {split: shards[split].bytes for split in SPLITS},
        "validation_fraction": round(shards["val"].bytes / total, 6),
        "validation": "tail of one document" if plan.shared else "whole documents",
        "bad": dict(sorted(bad.items())),
        **by_kind,
        "largest_group_of_duplicates": {kind: count for kind, count in largest.items() if count},
    }


def _write_card(folder: Path, config: PrepareConfig, source_hash: str, stats: dict[str, Any]) -> None:
    documents, size = stats["documents"], stats["bytes"]
    source, licence = f"`{Path(config.source).name}`, as it was given.", config.licence or "its owner's; none was given"
    if config.source == "stdlib":
        source, licence = "The text of Python's standard library, without its tests.", config.licence or "PSF"
    sample = "Everything in the source."
    if stats["ignored"]:
        ignored = ", ".join(f"{ending} {count:,}" for ending, count in stats["ignored"].items())
        sample = f"Everything in the source but files of other kinds: {ignored}."
    if config.max_bytes is not None:
        sample = (
            f"A sample of the whole: documents in the order of their hash until {config.max_bytes:,} bytes; "
            "the last one is cut to fit."
        )
    how = "by the SHA-256 of the record"
    if stats["validation"] != "whole documents":
        how = "the tail of the largest record, cut at a paragraph: no whole one was small enough"
    counted = [f"{kind}, {what}: {count:,}" for kind in ("bad", *KINDS) for what, count in stats[kind].items()]
    counted += [f"broken: {name!r}: {problem}" for name, problem in stats["broken_files"].items()]
    counted += [
        f"largest group of {kind} duplicates: {count:,} documents"
        for kind, count in stats["largest_group_of_duplicates"].items()
    ]
    write_card(
        folder,
        "Corpus",
        {
            "What it is": [
                source,
                f"Licence: {licence}.",
                sample,
                *(f"{split}: {documents[split]:,} documents, {size[split]:,} bytes" for split in SPLITS),
                f"Validation is {stats['validation_fraction']:.2%} of the bytes ({how}).",
            ],
            "What was done": [f"records read: {stats['records']:,}", *counted],
            "How some of it begins": [f"`{text!r}`" for text in _samples(folder)],
            "How it was made": [
                f"SHA-256 of what the source holds: `{source_hash}`",
                "The plan, with every rule and its limits, is `config` in manifest.json.",
            ],
            "How to use it": [
                "`seedbed tokenizer --corpus FOLDER --out TOKENIZER`, then `seedbed tokenize`",
                'Each line of the .jsonl.zst files is {"text": …, "source": …}.',
                *(["What could not be read is in rejects.jsonl, with the reason."] if stats["bad"] else []),
            ],
        },
        name="DATA_CARD.md",
    )


def _samples(folder: Path) -> list[str]:
    rows = itertools.islice(read_rows(folder / "train-00000.jsonl.zst"), SAMPLE_ROWS)
    return [" ".join(row["text"][:200].split()) for row in rows]
