"""Claim: `seedbed prepare` with every rule of the plan data/web on does ≥ 1.5 MB/s of English text on one core, ≥ 3
times what datatrove does with the same rules on the same text; with 2 workers 300 MB take ≤ 1/1.8 of the time, and the
memory of 30 MB (±10%). Of planted near-duplicates at a Jaccard similarity of 0.8 or more it finds ≥ 95%; by brute
force ≤ 1% of what it drops is like no other text; all planted exact copies, mojibake, secrets, foreign texts, junk,
benchmark rows and rows that cannot be read are found.

Text: books, cut into documents of 10,000 characters as the plan cuts, a row each; for 300 MB again and again with other
words. Speeds are of whole commands, with the start of Python, in MB of text. One core: one worker, held on one core.
Peer: datatrove (PyPI), one task, on every seventh document: `--datatrove PYTHON` names an interpreter that has it;
peers/datatrove_rules.py says what it runs and what to install. Without it, `ratio_datatrove` is null and not judged.
Run: python benchmarks/prepare.py --json --datatrove PYTHON   (about 6 minutes and 2 GB of disk; --text FILE.jsonl.zst)
Ends with exit code 1 when a claim is not met.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
BOOKS = ROOT.parent / "shared" / "data" / "books.jsonl.zst"
PEER = Path(__file__).parent / "peers" / "datatrove_rules.py"
LONGEST = 10_000
"""Characters of a document: the plan's max_characters."""
SAMPLED = 7
"""datatrove gets every seventh document: it takes several times as long."""
SMALL_MB, LARGE_MB = 30, 300
PLANTED = 60
"""Rows of each planted kind."""
STAGES = {
    "reading": "seedbed.data.units:read_documents",
    "repair": "seedbed.data.cleaning.repair:Repair.mend",
    "control characters": "seedbed.data.cleaning.cleaner:strip_control_characters",
    "language": "seedbed.data.cleaning.language:Languages.check",
    "gopher": "seedbed.data.cleaning.cleaner:check_gopher",
    "c4": "seedbed.data.cleaning.cleaner:keep_c4_lines",
    "words": "seedbed.data.cleaning.cleaner:words",
    "word hashes": "seedbed.data.cleaning.cleaner:word_hashes",
    "repetition": "seedbed.data.cleaning.cleaner:check_repetition",
    "privacy": "seedbed.data.cleaning.cleaner:mask",
    "rows of units": "seedbed.data.units:RowWriter.write",
    "signatures": "seedbed.data.units:Signer.sign",
    "duplicates": "seedbed.data.prepare:find_duplicates",
    "shards": "seedbed.data.prepare:_write",
}
"""What is timed for `stages`: where `prepare` looks each function up."""


def met(figures: Mapping[str, Any]) -> dict[str, bool]:
    """Which claims the figures meet; a figure that is no number meets none, one that is null is not judged."""
    claims = {
        "at least 1.5 MB/s a core": figures["mb_per_s_core"] >= 1.5,
        "2 workers at least 1.8 times as fast": figures["scaling_2"] >= 1.8,
        "at least 3 times datatrove": figures["ratio_datatrove"] is None or figures["ratio_datatrove"] >= 3,
        "the same memory for ten times the text": figures["rss_ratio"] <= 1.1,
        "95% of near-duplicates found": figures["recall"] >= 0.95,
        "at most 1% dropped falsely": figures["false_drops"] <= 0.01,
        "everything else that was planted found": figures["missed"] == 0,
    }
    if figures["ratio_datatrove"] is None:
        del claims["at least 3 times datatrove"]
    return claims


# Text ----------------------------------------------------------------------------------------------------------------


def cut_documents(path: Path, longest: int) -> list[str]:
    """The texts of a .jsonl.zst file, cut as the plan cuts."""
    from seedbed.data.cleaning.lengths import split
    from seedbed.shards import read_rows

    return [part for row in read_rows(path) for part in split(row["text"], longest, Counter())]


def varied(texts: Sequence[str]) -> Iterator[str]:
    """The texts over and over, each time with every fifth word another: no copy is like any other, since a run of five
    words has one that was changed."""
    vocabulary = sorted(set(re.findall(r"\b[a-z]{2,9}\b", " ".join(texts[::20]))))
    for seed in count():
        draw = random.Random(seed)
        for text in texts:
            words = text.split(" ")
            places = [i for i in range(draw.randrange(5), len(words), 5) if words[i].isalpha()]
            for i, word in zip(places, draw.choices(vocabulary, k=len(places)), strict=True):
                words[i] = word
            yield " ".join(words)


def write_documents(path: Path, texts: Iterable[str], megabytes: float = float("inf")) -> float:
    """Writes documents as rows until there are so many megabytes of text; returns how many there are."""
    size = 0
    with open(path, "w", encoding="utf-8") as file:
        for text in texts:
            file.write(json.dumps({"text": text}) + "\n")
            size += len(text.encode())
            if size >= megabytes * 1e6:
                break
    return size / 1e6


# Runs ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ran:
    """What a command took."""

    seconds: float
    peak_mb: float
    """The most that all its processes held at one time: proportional set size, so shared pages count once."""


def run(command: Sequence[object], *, one_core: bool) -> Ran:
    """Runs a command; its output is shown only when it fails."""
    hold = partial(os.sched_setaffinity, 0, {min(os.sched_getaffinity(0))}) if one_core else None
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            list(map(str, command)), stdout=output, stderr=subprocess.STDOUT, preexec_fn=hold, env=environment
        )
        peak = [0.0]
        watcher = threading.Thread(target=_watch, args=(process, peak))
        watcher.start()
        code = process.wait()
        seconds = time.perf_counter() - began
        watcher.join()
        if code:
            output.seek(0)
            sys.exit(output.read().decode(errors="replace")[-4_000:])
    return Ran(seconds, peak[0])


def _watch(process: subprocess.Popen[bytes], peak: list[float]) -> None:
    while process.poll() is None:
        held = 0
        try:
            family = psutil.Process(process.pid)
            for member in (family, *family.children(recursive=True)):
                held += member.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # one ended meanwhile
            continue
        peak[0] = max(peak[0], held / 1e6)
        time.sleep(0.1)


def prepare_command(source: Path, out: Path, *, workers: int) -> list[object]:
    command = [sys.executable, "-m", "seedbed", "prepare", "--config", "data/web", "--source", source, "--out", out]
    return [*command, "--workers", workers]


# Figures -------------------------------------------------------------------------------------------------------------


def speed(texts: Sequence[str], folder: Path, runs: int) -> dict[str, Any]:
    """One worker on one core."""
    source = folder / "books.jsonl"
    megabytes = write_documents(source, texts)
    commands = [prepare_command(source, folder / f"books-{number}", workers=1) for number in range(runs)]
    seconds = statistics.median(run(command, one_core=True).seconds for command in commands)
    return {"mb": round(megabytes, 1), "mb_per_s_core": round(megabytes / seconds, 2)}


def against_datatrove(python: str | None, texts: Sequence[str], folder: Path) -> dict[str, Any]:
    """Ours and theirs, each on one core."""
    from seedbed.data.corpus import Corpus
    from seedbed.shards import read_rows

    if python is None:
        return {"ratio_datatrove": None}
    source, corpus, work = folder / "sample" / "sample.jsonl", folder / "sample-corpus", folder / "sample-datatrove"
    source.parent.mkdir()
    megabytes = write_documents(source, texts[::SAMPLED])
    ours = run(prepare_command(source, corpus, workers=1), one_core=True).seconds
    theirs = run([python, PEER, source.parent, work], one_core=True).seconds
    return {
        "ratio_datatrove": round(theirs / ours, 2),
        "sample_mb": round(megabytes, 1),
        "sample_mb_per_s": round(megabytes / ours, 2),
        "sample_mb_per_s_datatrove": round(megabytes / theirs, 2),
        "sample_kept": sum(Corpus.open(corpus).stats["documents"].values()),
        "sample_kept_datatrove": sum(1 for path in (work / "out").glob("*.zst") for _ in read_rows(path)),
    }


def growth(texts: Sequence[str], folder: Path) -> dict[str, Any]:
    """A little and much of a text without duplicates: the peaks of two workers, and their gain over one."""
    small, large = folder / "small.jsonl", folder / "large.jsonl"
    write_documents(small, varied(texts), SMALL_MB)
    megabytes = write_documents(large, varied(texts), LARGE_MB)
    little = run(prepare_command(small, folder / "small", workers=2), one_core=False)
    two = run(prepare_command(large, folder / "large-2", workers=2), one_core=False)
    one = run(prepare_command(large, folder / "large-1", workers=1), one_core=True)
    stats = json.loads((folder / "large-1" / "stats.json").read_text())
    whole = stats["records"] - sum(stats["dropped"].values())
    return {
        "large_kept": round(whole / stats["records"], 3),
        "scaling_2": round(one.seconds / two.seconds, 2),
        "large_mb_per_s": {"1": round(megabytes / one.seconds, 2), "2": round(megabytes / two.seconds, 2)},
        "rss_ratio": round(two.peak_mb / little.peak_mb, 3),
        "peak_mb": {str(SMALL_MB): round(little.peak_mb), str(LARGE_MB): round(two.peak_mb)},
    }


def planted(path: Path, folder: Path) -> dict[str, Any]:
    """What becomes of planted problems; the benchmark file is of GSM8K, or of made-up questions."""
    sys.path.append(str(ROOT))
    from benchmarks.planted import LONGEST_ROW, judge, plant, read_kept, write_source

    from seedbed.configuration import from_arguments
    from seedbed.data.cleaning.benchmarks import read_strings
    from seedbed.data.cleaning.cleaner import Cleaner
    from seedbed.data.config import PrepareConfig
    from seedbed.data.prepare import prepare

    exam = path.parent / "benchmarks" / "gsm8k.test.jsonl"
    if not exam.exists():
        exam = folder / "exam.jsonl"
        exam.write_text(
            "".join(
                json.dumps(
                    {
                        "question": f"How many of the {i} apples that the {i + 7} pickers of the farm on hill {i} found"
                        f" by noon were still in the {i + 3} baskets at night?"
                    }
                )
                + "\n"
                for i in range(100)
            )
        )
    config = from_arguments(
        PrepareConfig,
        [
            *("--config", "data/web", "--clean.benchmarks", str(exam), "--workers", "1"),
            *("--source", str(folder / "planted"), "--out", str(folder / "planted-corpus")),
            *("--reading.longest_row", str(LONGEST_ROW), "--reading.max_bad_fraction", "0.5"),
        ],
    )
    cleaner = Cleaner(config.clean)
    texts = []
    for text in cut_documents(path, LONGEST // 4)[::5]:
        cleaned = cleaner.clean(text, Counter())
        if len(cleaned) == 1 and cleaner.clean(cleaned[0], Counter()) == cleaned:
            texts.append(cleaned[0].strip())
    questions = [text for text in read_strings(exam) if re.fullmatch(r"[^\n{]{100,}[.?]", text)]
    rows = plant(texts, questions, PLANTED)
    bad = write_source(folder / "planted", rows)
    result = prepare(config)
    figures = judge(rows, read_kept(folder / "planted-corpus"))
    by_kind = figures["missed"] | ({} if result["bad"] == bad else {"bad rows": 1})
    return {
        "recall": figures["recall"],
        "false_drops": figures["false_drops"],
        "missed": sum(by_kind.values()) + figures["lost"],
        "planted": {**figures, "missed": by_kind, "bad": result["bad"]},
    }


def stages(texts: Sequence[str], folder: Path) -> dict[str, float]:
    """Seconds of each stage on the sample, in this process, and of all the rest."""
    from seedbed.configuration import from_arguments
    from seedbed.data.config import PrepareConfig
    from seedbed.data.prepare import prepare

    source = folder / "stages.jsonl"
    write_documents(source, texts[::SAMPLED])
    seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
    whole = []
    for name, place in STAGES.items():
        module, _, path = place.partition(":")
        owner: Any = import_module(module)
        *inner, last = path.split(".")
        for attribute in inner:
            owner = getattr(owner, attribute)
        whole.append((owner, last, getattr(owner, last)))
        setattr(owner, last, _timed(getattr(owner, last), name, seconds))
    try:
        began = time.process_time()
        prepare(
            from_arguments(
                PrepareConfig,
                ["--config", "data/web", "--source", str(source), "--out", str(folder / "stages"), "--workers", "1"],
            )
        )
        total = time.process_time() - began
    finally:
        for owner, last, function in whole:
            setattr(owner, last, function)
    seconds["all else"] = total - sum(seconds.values())
    return {name: round(value, 3) for name, value in seconds.items()}


def _timed(function: Callable[..., Any], name: str, seconds: dict[str, float]) -> Callable[..., Any]:
    def timed(*arguments: Any, **options: Any) -> Any:
        began = time.process_time()
        try:
            result = function(*arguments, **options)
            return list(result) if isinstance(result, Iterator) else result
        finally:
            seconds[name] += time.process_time() - began

    return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, default=BOOKS)
    parser.add_argument("--datatrove", metavar="PYTHON", help="an interpreter that has datatrove")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print only one JSON object")
    arguments = parser.parse_args()
    texts = cut_documents(arguments.text, LONGEST)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        figures |= speed(texts, folder, arguments.runs)
        figures |= against_datatrove(arguments.datatrove, texts, folder)
        figures |= growth(texts, folder)
        figures |= planted(arguments.text, folder)
        figures["stages"] = stages(texts, folder)
    claims = met(figures)
    print(json.dumps({**figures, "machine": f"{os.cpu_count()} × {platform.machine()}", "met": claims}))
    sys.exit(not all(claims.values()))


if __name__ == "__main__":
    main()
