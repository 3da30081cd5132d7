"""Claim: after 10 minutes of training on one core, on books and with a vocabulary of 8,192, the preset
`pretrain/books` predicts held-out books in ≥ 10% fewer bits per byte than transformers' Llama with as many parameters
(±2%), fused AdamW and a cosine, each with the rate and the batch that are best for it; means of 3 seeds.

Of the books, in the order of the file, each tenth is held out, and each tenth, five before it, chooses rates and
batches; the rest is trained on, and is what the tokenizer is learned from. Both sides sweep the same number of rates
and batches in runs of `--sweep_minutes`, scored on the tuning books; the best of each then trains for `--minutes` with
each seed, and is scored on all of the held-out books. Scores are those of windows of 256 tokens that do not overlap,
each read on its own. Minutes are of training, with reading the rows and without measuring, validation and saving.

A run takes one thread, and runs go in pairs, ours and the peer's at the same moment, a core each, in turns: whatever
the machine does, it does to both; both take memory as the command `seedbed` does. `--threads N` gives a run that many
and lets it run alone. The peer's cosine follows the clock and ends with the budget. Ours counts its steps beforehand,
as `--train.minutes` does, into 98% of the budget; where it then takes more than 101% the claim is not met. Options of
`seedbed pretrain` change ours.

With `--work FOLDER` a stopped benchmark goes on from the last pair that was finished.
Run: python benchmarks/time_to_quality.py --work FOLDER --json   (about 80 minutes on 2 cores)
Ends with exit code 1 when a claim is not met.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from seedbed.__main__ import SPARING

BOOKS = Path(__file__).parents[2] / "shared" / "data" / "books.jsonl.zst"
PRESET = "pretrain/books"
VOCABULARY, WINDOW = 8192, 256
TENTH, HELD_OUT, TUNING = 10, 9, 4
"""Book number i is held out when i mod 10 is 9, and chooses rates and batches when it is 4."""
TOKENIZER_BYTES = 8_000_000
"""Of the training books, an even sample, as much as the tokenizer is learned from."""
TUNING_ROWS = 512
"""Windows of the tuning books that a run of the sweep is scored on; of the held-out books all are."""
WARM, COUNTED = 3, 20
"""Steps whose time is not counted and is, on a model that is thrown away, before a run of either side."""
SWEEP_SEED = 100
"""Of the runs of the sweep: none that is measured at the end."""
USED = 0.98
"""Of the budget: ours, whose steps are counted beforehand, keeps the rest for a machine that slows down."""

BATCHES = (2, 4, 8)
"""Rows of a step that both sides try."""
OUR_RATES = (0.25, 0.5, 1.0, 2.0)
"""What all four rates of the preset are multiplied with."""
PEER_RATES = (5e-4, 1e-3, 2e-3, 4e-3)
"""Peak rates of the peer's AdamW."""
PEER_SIZES = {
    **{"vocab_size": VOCABULARY, "hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 3},
    **{"intermediate_size": 512, "max_position_embeddings": WINDOW, "tie_word_embeddings": False},
}
"""As many parameters as the preset has."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """All that one training depends on."""

    side: str
    """ours or peer."""
    rate: float
    """Of ours what the preset's rates are multiplied with, of the peer AdamW's peak rate."""
    batch: int
    minutes: float
    scored_on: str
    """tuning or held_out."""
    seed: int
    threads: int
    options: tuple[str, ...] = ()
    """Of `seedbed pretrain`, for ours."""


# The texts -----------------------------------------------------------------------------------------------------------


def write_tokens(books: Path, folder: Path) -> None:
    """The folders `tuning` and `held_out`: the same training books, with those or these for validation."""
    import numpy as np
    import zstandard

    from seedbed.data.tokens import StoreWriter
    from seedbed.data.vocabulary import sample
    from seedbed.runs import new_folder
    from seedbed.tokenizers import byte_pair

    if (folder / "held_out").exists():  # the last one
        return
    with zstandard.open(books, "rb") as raw:
        texts = [json.loads(line)["text"] for line in io.TextIOWrapper(raw, encoding="utf-8")]
    numbered = list(enumerate(texts))
    parts = {
        "train": [text for number, text in numbered if number % TENTH not in (TUNING, HELD_OUT)],
        "tuning": [text for number, text in numbered if number % TENTH == TUNING],
        "held_out": [text for number, text in numbered if number % TENTH == HELD_OUT],
    }
    tokenizer = byte_pair.train(sample(parts["train"], TOKENIZER_BYTES), VOCABULARY)
    for name in ("tuning", "held_out"):
        if (folder / name).exists():
            continue
        with new_folder(folder / name, "tokens") as staging:
            (staging / "tokenizer").mkdir()
            tokenizer.save(staging / "tokenizer")
            for split, part in (("train", parts["train"]), ("val", parts[name])):
                with StoreWriter(staging, split, tokenizer) as writer:
                    for text in part:
                        writer.add(np.asarray(tokenizer.encode(text), dtype=np.uint32), len(text.encode()))


# One run, in a process of its own -------------------------------------------------------------------------------------


def train(run: Run, tokens: Path) -> dict[str, Any]:
    """The figures of a run."""
    import torch

    torch.set_num_threads(run.threads)
    with tempfile.TemporaryDirectory() as place:
        figures = train_ours(run, tokens, Path(place)) if run.side == "ours" else train_peer(run, tokens)
    return figures | {"depends": depends()}


def our_config(run: Run, tokens: Path, out: Path) -> Any:
    """The preset with the rates and the batch of a run."""
    from seedbed.configuration import from_arguments
    from seedbed.training.config import CheckpointConfig, PretrainConfig

    arguments = [f"--config={PRESET}", f"--data.tokens={tokens}", f"--data.length={WINDOW}", f"--out={out}"]
    arguments += run.options
    config: PretrainConfig = from_arguments(PretrainConfig, arguments)
    optimizer = config.optimizer.resolve()
    rates = ("matrix_rate", "embedding_rate", "head_rate", "vector_rate")
    optimizer = replace(optimizer, **{name: run.rate * getattr(optimizer, name) for name in rates})
    # The trainer's own validation takes no part: a row before the first step, and one after the last.
    quiet = {
        "validate_every": 10**9,
        "validation_rows": 1,
        "log_every": 100,
        "checkpoint": CheckpointConfig(steps=10**9),
    }
    fixed = replace(config.train, batch=run.batch, seed=run.seed, minutes=None, steps=1, **quiet)
    return replace(config, optimizer=optimizer, train=fixed)


def train_ours(run: Run, tokens: Path, place: Path) -> dict[str, Any]:
    from seedbed.model.accounting import count_parameters
    from seedbed.model.folder import load_model
    from seedbed.training.observers.observer import Observer
    from seedbed.training.pretrain import pretrain

    class Stopwatch(Observer):
        """Seconds of each step, all that the trainer does around it included."""

        def begin(self, trainer: Any) -> None:
            self.seconds: list[float] = []
            self.since = time.perf_counter()

        def recorded(self, trainer: Any, name: str, record: Mapping[str, Any]) -> None:
            if "val_loss" in record:  # the looks before the first step and after the last are no training
                self.since = time.perf_counter()

        def after_step(self, trainer: Any, report: Any) -> None:
            now = time.perf_counter()
            self.seconds.append(now - self.since)
            self.since = now

    watch = Stopwatch()

    def trained(name: str, steps: int) -> dict[str, Any]:
        config = our_config(run, tokens, place / name)
        result = pretrain(replace(config, train=replace(config.train, steps=steps)), observers=[watch])
        if not result["finished"]:
            raise SystemExit(f"stopped at step {result['steps']}: there is nothing to tell")
        return result

    trained("measured", WARM + COUNTED)
    steps = max(1, int(USED * 60 * run.minutes / statistics.median(watch.seconds[WARM:])))
    trained("run", steps)
    model, _ = load_model(place / "run")
    counted = count_parameters(model.config)
    return {
        "bpb": bits_per_byte(model, tokens, run.scored_on),
        "seconds": sum(watch.seconds),
        "steps": steps,
        "tokens": steps * run.batch * WINDOW,
        "parameters": counted.total,
        "without_embedding": counted.total - counted.embedding,
    }


def train_peer(run: Run, tokens: Path) -> dict[str, Any]:
    from benchmarks.peers.llama import Llama

    from seedbed.data.batches.loader import WindowSource
    from seedbed.data.tokens import open_tokens

    llama = Llama(sizes=PEER_SIZES, rate=run.rate, batch=run.batch, seed=run.seed)
    source = WindowSource(open_tokens(tokens).train, WINDOW, run.seed)
    measured = llama.seconds_of_a_step(source, WARM, COUNTED)
    model, steps, seconds = llama.train(source, 60 * run.minutes, measured)
    total = model.num_parameters()
    return {
        "bpb": bits_per_byte(lambda tokens_BT: model(input_ids=tokens_BT).logits, tokens, run.scored_on),
        "seconds": seconds,
        "steps": steps,
        "tokens": steps * run.batch * WINDOW,
        "parameters": total,
        "without_embedding": total - model.get_input_embeddings().weight.numel(),
    }


def bits_per_byte(logits: Callable[[Any], Any], tokens: Path, scored_on: str) -> float | None:
    """Of windows of the text that `tokens` has for validation, the same for both sides: some of the tuning books, all
    of the held-out ones. None of a model that diverged."""
    import torch
    from torch.nn.functional import cross_entropy

    from seedbed.data.batches.loader import WindowSource
    from seedbed.data.tokens import open_tokens

    opened = open_tokens(tokens)
    source = WindowSource(opened.val, WINDOW, seed=0)
    rows = source.samples if scored_on == "held_out" else min(TUNING_ROWS, source.samples)
    bytes_V = torch.from_numpy(opened.tokenizer.token_bytes())
    nats, size = 0.0, 0
    with torch.no_grad():
        for first in range(0, rows, 8):
            batch = source.batch(first, min(8, rows - first))
            targets_N = batch.targets_BT.flatten()
            nats += float(cross_entropy(logits(batch.tokens_BT).flatten(0, 1), targets_N, reduction="sum"))
            size += int(bytes_V[targets_N].sum())
    return nats / math.log(2) / size if math.isfinite(nats) else None


# Runs in pairs --------------------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """Runs pairs, and remembers in its folder those that are finished."""

    work: Path
    tokens: Path
    depends: str
    """On the machine, the versions, the code: what figures of another time cannot be mixed with."""
    says: bool
    pairs: int = 0

    def pair(self, ours: Run, peer: Run) -> tuple[dict[str, Any], dict[str, Any]]:
        """The figures of both. They are written down only together: one of them alone would have run alone."""
        from seedbed.runs import read_json, sha256_json, write_json

        runs = (ours, peer)
        file = self.work / "pairs" / f"{sha256_json([self.depends, *map(asdict, runs)])[:16]}.json"
        self.pairs += 1
        if not file.is_file():
            together = [runs] if ours.threads == 1 else [(ours,), (peer,)]
            found = [figures for some in together for figures in self._run(*some)]
            write_json(file, {"runs": [asdict(run) for run in runs], "found": found})
        found = read_json(file)["found"]
        for run, figures in zip(runs, found, strict=True):
            if self.says:
                told = f"{run.side} {run.scored_on} rate {run.rate:g} batch {run.batch} seed {run.seed}"
                print(f"{told}: {figures['bpb']} after {figures['tokens']:,} tokens", file=sys.stderr, flush=True)
        return found[0], found[1]

    def _run(self, *runs: Run) -> list[dict[str, Any]]:
        """At the same moment."""
        cores: list[int | None] = [None] * len(runs)
        if len(runs) == 2 and hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) >= 2:
            first, second = sorted(os.sched_getaffinity(0))[:2]
            cores = [first, second] if self.pairs % 2 else [second, first]
        started = [self._start(run, core) for run, core in zip(runs, cores, strict=True)]
        try:
            return [self._wait(process) for process in started]
        finally:
            for process in started:
                process.kill()

    def _start(self, run: Run, core: int | None) -> subprocess.Popen[str]:
        threads = str(run.threads)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        environment |= {"THP_MEM_ALLOC_ENABLE": "1", **SPARING}  # memory as `seedbed` takes it, for both
        folder = str(self.tokens / run.scored_on)
        command = [sys.executable, __file__, "--only", json.dumps(asdict(run)), "--work", folder]
        if core is not None:
            command += ["--core", str(core)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    def _wait(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        out, errors = process.communicate()
        if process.returncode:
            raise SystemExit(f"a run ended with exit code {process.returncode}:\n{errors[-2000:]}")
        figures: dict[str, Any] = json.loads(out.splitlines()[-1])
        if figures.pop("depends") != self.depends:
            raise SystemExit("the code has changed since this benchmark began: give another --work, or begin again")
        return figures


def sweep(bench: Bench, plan: Callable[[str, float, int], Run]) -> dict[str, list[dict[str, Any]]]:
    """Every rate with every batch, on both sides."""
    table: dict[str, list[dict[str, Any]]] = {"ours": [], "peer": []}
    for batch in BATCHES:
        for our_rate, peer_rate in zip(OUR_RATES, PEER_RATES, strict=True):
            runs = plan("ours", our_rate, batch), plan("peer", peer_rate, batch)
            for run, figures in zip(runs, bench.pair(*runs), strict=True):
                table[run.side].append({"rate": run.rate, "batch": batch, **figures})
    return table


def best(table: list[dict[str, Any]]) -> dict[str, Any]:
    """The lowest bits per byte; a run that diverged has none."""
    return min(table, key=lambda row: math.inf if row["bpb"] is None else row["bpb"])


def met(figures: Mapping[str, Any]) -> dict[str, bool]:
    """Which claims the figures meet; a figure that is no number meets none."""
    return {
        "at least 10% fewer bits per byte": figures["ours_bpb"] <= 0.9 * figures["peer_bpb"],
        "as many parameters, within 2%": abs(figures["parameters"] - figures["peer_parameters"])
        <= 0.02 * figures["peer_parameters"],
        "no more than the budget, within 1%": figures["seconds"] <= 1.01 * figures["budget_seconds"],
    }


def depends() -> str:
    """Hash of what figures depend on beside the run: these two files, the package, the libraries, the machine."""
    import seedbed
    from seedbed.configuration import find_preset

    found = hashlib.sha256()
    files = [Path(__file__), Path(__file__).parent / "peers" / "llama.py", find_preset(PRESET)]
    for path in [*files, *sorted(Path(seedbed.__file__).parent.rglob("*.py"))]:
        found.update(path.read_bytes())
    for name in ("torch", "transformers"):
        found.update(version(name).encode())
    found.update(f"{platform.machine()} {os.cpu_count()}".encode())
    return found.hexdigest()


def mean(found: list[dict[str, Any]], key: str) -> float:
    """Over the seeds."""
    return statistics.mean(figures[key] for figures in found)


def measure(arguments: argparse.Namespace, options: tuple[str, ...], work: Path) -> dict[str, Any]:
    """The sweep, then the best of each side with every seed."""
    from seedbed.runs import sha256_file

    tokens = work / f"tokens-{sha256_file(arguments.books)[:16]}"
    write_tokens(arguments.books, tokens)
    (work / "pairs").mkdir(exist_ok=True)
    bench = Bench(work, tokens, depends(), says=not arguments.json)

    def run(side: str, rate: float, batch: int, minutes: float, scored_on: str, seed: int) -> Run:
        own = options if side == "ours" else ()
        wanted = {"minutes": minutes, "scored_on": scored_on, "seed": seed, "threads": arguments.threads}
        return Run(side=side, rate=rate, batch=batch, options=own, **wanted)

    table = sweep(
        bench, lambda side, rate, batch: run(side, rate, batch, arguments.sweep_minutes, "tuning", SWEEP_SEED)
    )
    chosen = {side: best(rows) for side, rows in table.items()}
    found: dict[str, list[dict[str, Any]]] = {"ours": [], "peer": []}
    for seed in range(arguments.seeds):
        ours, peer = (
            run(side, row["rate"], row["batch"], arguments.minutes, "held_out", seed) for side, row in chosen.items()
        )
        for side, figures in zip(found, bench.pair(ours, peer), strict=True):
            found[side].append({"seed": seed, **figures})
    figures: dict[str, Any] = {f"{side}_bpb": mean(runs, "bpb") for side, runs in found.items()}
    figures["gain"] = 1 - figures["ours_bpb"] / figures["peer_bpb"]
    figures |= {"minutes": arguments.minutes, "budget_seconds": 60 * arguments.minutes}
    for side, prefix in (("ours", ""), ("peer", "peer_")):
        for key in ("seconds", "tokens", "steps"):
            figures[f"{prefix}{key}"] = mean(found[side], key)
        for key in ("parameters", "without_embedding"):
            figures[f"{prefix}{key}"] = found[side][0][key]
        figures[f"{prefix}rate"], figures[f"{prefix}batch"] = chosen[side]["rate"], chosen[side]["batch"]
    return figures | {"seeds": found, "sweep_minutes": arguments.sweep_minutes, "sweep": table}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each side at the end, of the seeds 0, 1, …")
    parser.add_argument("--minutes", type=float, default=10, help="of training, of each of them")
    parser.add_argument("--sweep_minutes", type=float, default=2.5, help="of training, of each run of the sweep")
    parser.add_argument("--threads", type=int, default=1, help="of a run; with more than 1 it runs alone")
    parser.add_argument("--work", type=Path, help="folder of finished runs, to go on from; otherwise a temporary one")
    parser.add_argument("--books", type=Path, default=BOOKS, help="rows with a text each, as .jsonl.zst")
    parser.add_argument("--json", action="store_true", help="print only one JSON object")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    arguments, options = parser.parse_known_args()
    if arguments.only:
        if arguments.core is not None:
            os.sched_setaffinity(0, {arguments.core})
        asked = json.loads(arguments.only)
        print(json.dumps(train(Run(**{**asked, "options": tuple(asked["options"])}), arguments.work)))
        return
    if not arguments.books.is_file():
        parser.error(f"{arguments.books} is not there: give --books FILE")
    from seedbed.runs import lock

    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the runs under way end too
        with lock(work):
            figures = measure(arguments, tuple(options), work)
    figures |= {
        "transformers": version("transformers"),
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
    }
    claims = met(figures)
    print(json.dumps({**figures, "met": claims}))
    sys.exit(not all(claims.values()))


if __name__ == "__main__":
    main()
