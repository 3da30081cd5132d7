"""Claim: batches of 32 rows of 1,024 tokens come from the memory map at ≥ 20 M tokens/s on one thread.

Besides, without a claim: with documents isolated, packed best-fit, and mixed from two stores. The store is made for the
purpose: documents of random tokens, of log-normal length, in the file cache and checked before the clock runs.
Run: python benchmarks/loader.py --json
Ends with exit code 1 when a claim is not met.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from seedbed.data.batches.batch import BatchSource, TokenBatch
from seedbed.data.batches.best_fit import BestFitSource
from seedbed.data.batches.loader import WindowSource
from seedbed.data.batches.mixture import MixtureSource, Phase
from seedbed.data.tokens import StoreWriter, TokenStore, open_tokens
from seedbed.runs import new_folder
from seedbed.tokenizers.bytes import build

LENGTH, BATCH, BATCHES = 1_024, 32, 100


def met(figures: Mapping[str, float]) -> dict[str, bool]:
    """Which claims the figures meet; a figure that is no number meets none."""
    return {"at least 20 M tokens/s": figures["tokens_per_s"] >= 20e6}


def make_store(folder: Path, tokens: int) -> TokenStore:
    chance, tokenizer = np.random.default_rng(0), build()
    with new_folder(folder, "tokens") as staging:
        (staging / "tokenizer").mkdir()
        tokenizer.save(staging / "tokenizer")
        for split, wanted in (("train", tokens), ("val", 1)):
            with StoreWriter(staging, split, tokenizer) as writer:
                while writer.n_tokens < wanted:
                    size = int(chance.lognormal(6, 1.2)) + 1
                    writer.add(chance.integers(0, 256, size).astype(np.uint32), size)
    store = open_tokens(folder).train
    store.check(np.array([0]), store.n_tokens)
    return store


def sources(store: TokenStore) -> dict[str, BatchSource[TokenBatch]]:
    windows = WindowSource(store, LENGTH, 0)
    mixed = MixtureSource([windows, WindowSource(store, LENGTH, 1)], [Phase(0, (0.7, 0.3))], windows.samples, 0)
    return {
        "tokens_per_s": windows,
        "isolate_tokens_per_s": WindowSource(store, LENGTH, 0, isolate=True),
        "best_fit_tokens_per_s": BestFitSource(store, LENGTH, 0, pad_id=0),
        "mixture_tokens_per_s": mixed,
    }


def seconds(source: BatchSource[TokenBatch], number: int) -> float:
    """Of so many batches, from the given round on."""
    began = time.perf_counter()
    for batch in range(number * BATCHES, (number + 1) * BATCHES):
        source.batch(batch * BATCH, BATCH)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=32_000_000, help="of the store")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print only one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        measured = sources(make_store(Path(place) / "tokens", arguments.tokens))
        times: dict[str, list[float]] = {name: [] for name in measured}
        for number in range(arguments.runs + 1):  # the first round warms and is dropped; kinds take turns
            for name, source in measured.items():
                times[name].append(seconds(source, number))
    per_round = BATCHES * BATCH * LENGTH
    figures = {name: round(per_round / statistics.median(taken[1:])) for name, taken in times.items()}
    claims = met(figures)
    print(json.dumps({**figures, "met": claims}))
    sys.exit(not all(claims.values()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
