"""Claim: at one checkpoint a minute, training `llama-small` takes at most 3% longer than without any.

The model is 12 layers × 512, vocabulary 32,768, feed-forward 2,048, under Muon; a checkpoint is its weights and the
optimizer's state, hashes and all. Steps with a save in the background take turns with as many steps without
one: the difference is all that a save costs, the copying and the cores that the writing takes from training. Its share
of a minute is the figure.
Run: python benchmarks/checkpoint_stall.py --json
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

import torch

from seedbed.data.batches.batch import TokenBatch
from seedbed.model.config import ModelConfig
from seedbed.model.transformer import Transformer
from seedbed.optim.config import OptimizerConfig, ScheduleConfig
from seedbed.training.config import TrainConfig
from seedbed.training.display import Display
from seedbed.training.objective import NextToken
from seedbed.training.trainer import Trainer

MODEL = ModelConfig(vocab_size=32_768, layers=12, width=512, ff_width=2_048, context=1_024)
INTERVAL = 60.0
"""Seconds between two checkpoints."""


def met(figures: Mapping[str, float]) -> dict[str, bool]:
    """Which claims the figures meet; a figure that is no number meets none."""
    return {"at most 3% of training time": figures["fraction"] <= 0.03}


class Noise:
    """Rows of random tokens; a BatchSource."""

    fingerprint, samples = "noise", 1_000_000

    def __init__(self, length: int):
        self.length = length

    def batch(self, first: int, count: int) -> TokenBatch:
        generator = torch.Generator().manual_seed(first)
        window_BT = torch.randint(MODEL.vocab_size, (count, self.length + 1), generator=generator)
        return TokenBatch(window_BT[:, :-1], window_BT[:, 1:])


def make_trainer(run: Path, batch: int, length: int) -> Trainer[TokenBatch]:
    torch.manual_seed(0)
    return Trainer(
        Transformer(MODEL),
        NextToken(),
        Noise(length),
        None,
        config=TrainConfig(steps=10**6, batch=batch),
        optimizer=OptimizerConfig(),
        schedule=ScheduleConfig(),
        run=run,
        display=Display("checkpoint stall", flops_per_token=1, peak_flops=1, quiet=True),
    )


def seconds(trainer: Trainer[TokenBatch], steps: int, *, saves: bool) -> float:
    """Of so many steps, with a save after the first of them, and until it is written."""
    began = time.perf_counter()
    for step in range(steps):
        trainer.step()
        if saves and step == 0:
            trainer.save(background=True)
    trainer.checkpoints.wait()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=20.0, help="of a turn: long enough for a save to end in it")
    parser.add_argument("--json", action="store_true", help="print only one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        trainer = make_trainer(Path(place), arguments.batch, arguments.length)
        seconds(trainer, 2, saves=True)  # warms, and takes the memory of the copy
        steps = max(3, round(arguments.seconds / (seconds(trainer, 2, saves=False) / 2)))
        with_, without = [], []
        for number in range(arguments.runs):
            for saves in (False, True) if number % 2 else (True, False):
                (with_ if saves else without).append(seconds(trainer, steps, saves=saves))
        folder = trainer.checkpoints.path(trainer.checkpoints.steps()[-1])
        written = sum(file.stat().st_size for file in folder.iterdir())
    stalls = [a - b for a, b in zip(with_, without, strict=True)]
    stall = statistics.median(stalls)
    figures = {
        "fraction": round(stall / INTERVAL, 4),
        "stall_seconds": round(stall, 2),
        "stalls_seconds": [round(one, 2) for one in sorted(stalls)],
        "step_seconds": round(statistics.median(without) / steps, 3),
        "checkpoint_mb": round(written / 1e6),
    }
    claims = met(figures)
    print(json.dumps({**figures, "met": claims}))
    sys.exit(not all(claims.values()))


if __name__ == "__main__":
    main()
