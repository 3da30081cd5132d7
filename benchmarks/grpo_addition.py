"""Claim: GRPO lifts a model that adds two numbers of two digits rightly in 20–60% of held-out sums by at least 30
points within 10 minutes on a CPU, for each of 3 seeds, and its answers become at most twice as long.

A model of 0.6 million parameters is fine-tuned from fresh weights on half of the sums, until one of its checkpoints
answers 25 to 55% of those that are held out; from there `seedbed grpo` goes on with the reward `exact` alone, on
sums whose answers nobody shows it. Shares are of greedy answers to the same held-out sums, right to the letter. The
seconds are those of `seedbed grpo`, from reading the problems to the saved model.
Run: python benchmarks/grpo_addition.py --json   (about 20 minutes on 1 core). Options of `seedbed grpo` change it.
Ends with exit code 1 when a claim is not met.
"""

from __future__ import annotations

import random
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.seeds import fine_tuned, over_seeds

from seedbed.alignment.policy.config import GrpoConfig
from seedbed.alignment.policy.grpo import grpo
from seedbed.configuration import from_arguments
from seedbed.inference.config import SamplingConfig
from seedbed.inference.engine import Engine
from seedbed.model.config import ModelConfig
from seedbed.shards import write_rows
from seedbed.tokenizers.chat import encode_prompt

MODEL = ModelConfig(layers=3, width=128, heads=4, context=64)
BEGIN, MOST = 0.25, 0.55
"""Shares of right answers from which, and to which, a model is one to begin with."""
HELD_OUT = 300
"""Sums that nothing is learned from, about: a+a is its own other order."""

Row = dict[str, str]


def sums(seed: int) -> tuple[list[Row], list[Row], list[Row]]:
    """Sums of two numbers from 10 to 99: half of them to be shown, others to be asked, and those held out. a+b and b+a
    are on the same side."""
    pairs = [(a, b) for a in range(10, 100) for b in range(a, 100)]
    random.Random(seed).shuffle(pairs)
    orders = [dict.fromkeys([(a, b), (b, a)]) for a, b in pairs]
    rows = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for both in orders for a, b in both]
    half, held_out = (sum(map(len, orders[:count])) for count in (len(orders) // 2, len(orders) - HELD_OUT // 2))
    return rows[:half], rows[half:held_out], rows[held_out:]


def measure(model: Path, rows: list[Row]) -> tuple[float, float]:
    """Share of right greedy answers, and the mean of their tokens."""
    engine = Engine.load(model)
    prompts = [encode_prompt(engine.tokenizer, [{"role": "user", "content": row["prompt"]}]) for row in rows]
    answers = engine.complete(prompts, SamplingConfig(temperature=0, max_tokens=16))
    right = [answer.reason == "end" and answer.text == row["answer"] for answer, row in zip(answers, rows, strict=True)]
    return statistics.fmean(right), statistics.fmean(len(answer.tokens) for answer in answers)


def beginner(place: Path, shown: list[Row], held_out: list[Row], seed: int) -> Path:
    """A checkpoint of fine-tuning that answers enough, and not too much."""
    options = ["--length=64", "--train.steps=700", "--train.batch=16", "--train.validate_every=700"]
    options += ["--train.checkpoint.steps=20", "--train.checkpoint.keep=1000", "--schedule.name=constant"]
    rows = [{"prompt": row["prompt"], "response": row["answer"]} for row in shown]
    tuned = fine_tuned(place, MODEL, rows, seed, options)
    for checkpoint in sorted((tuned / "checkpoints").iterdir()):
        share, _ = measure(checkpoint, held_out)
        print(checkpoint.name, share, file=sys.stderr)
        if BEGIN <= share <= MOST:
            return checkpoint
    raise SystemExit("no checkpoint of fine-tuning answers as much as a model to begin with does")


def run(place: Path, seed: int, options: list[str]) -> dict[str, Any]:
    """The figures of a seed."""
    shown, asked, held_out = sums(seed)
    model = beginner(place, shown, held_out, seed)
    write_rows(place / "asked.jsonl", asked)
    write_rows(place / "held_out.jsonl", held_out)
    before, length = measure(model, held_out)
    settings = (
        *(f"--model={model}", f"--data={place / 'asked.jsonl'}", f"--validation={place / 'held_out.jsonl'}"),
        *(f"--out={place / 'grpo'}", "--max_tokens=8", "--group=8", "--train.batch=256", "--train.steps=240"),
        *("--optimizer.rate=0.0003", "--train.validate_every=50", f"--train.seed={seed}", "--train.device=cpu"),
    )
    result = grpo(from_arguments(GrpoConfig, [*settings, *options]))
    after, longer = measure(place / "grpo", held_out)
    return {
        "before": round(before, 4),
        "after": round(after, 4),
        "seconds": result["seconds"],
        "length_before": round(length, 2),
        "length_after": round(longer, 2),
    }


def met(figures: Mapping[str, Any]) -> dict[str, bool]:
    """Which claims the figures of all seeds meet."""
    return {
        "3 seeds": figures["runs"] >= 3,
        "begins at 20 to 60%": figures["most_from_40_points"] <= 20,
        "at least 30 points more": figures["least_gain_points"] >= 30,
        "within 10 minutes": figures["most_seconds"] <= 600,
        "at most twice as long": figures["most_growth"] <= 2,
    }


def extremes(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of the figures of all seeds."""
    return {
        "most_from_40_points": round(max(abs(100 * seed["before"] - 40) for seed in found), 2),
        "least_gain_points": round(min(100 * (seed["after"] - seed["before"]) for seed in found), 2),
        "most_growth": round(max(seed["length_after"] / seed["length_before"] for seed in found), 3),
    }


if __name__ == "__main__":
    over_seeds(__doc__, run, extremes, met)
