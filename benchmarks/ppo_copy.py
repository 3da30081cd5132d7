"""Claim: PPO teaches a model that answers with any digit to say the digit that it was asked, in at least 95% of
answers, within 20 seconds on one core of a CPU, for each of 3 seeds.

A model of 0.1 million parameters is fine-tuned to answer a digit with a digit drawn at random, so that one answer in
ten is right and each one ends; nothing shows it which. From there `seedbed ppo` has the reward `exact` alone; what a
nat of divergence costs keeps it trying all digits until it has found each. Right is an answer drawn as it is in
training, at temperature 1, to the letter; there are ten prompts, and nothing is held out. The seconds are those of
`seedbed ppo`, from reading the problems to the saved model.
Run: python benchmarks/ppo_copy.py --json   (about a minute on 1 core). Options of `seedbed ppo` change it.
Ends with exit code 1 when a claim is not met.
"""

from __future__ import annotations

import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.seeds import fine_tuned, over_seeds

from seedbed.alignment.policy.config import PolicyConfig, PpoConfig
from seedbed.alignment.policy.ppo import ppo
from seedbed.configuration import from_arguments
from seedbed.inference.config import SamplingConfig
from seedbed.inference.engine import Engine
from seedbed.model.config import ModelConfig
from seedbed.shards import write_rows
from seedbed.tokenizers.chat import encode_prompt

Config = TypeVar("Config", bound=PolicyConfig)
MODEL = ModelConfig(layers=2, width=64, heads=4, context=32)
DIGITS = "0123456789"
TEMPLATE = (
    "{% for message in messages %}{{ message.content }}{{ '=' if message.role == 'user' else '</s>' }}{% endfor %}"
)
"""A question and its answer: 7=7</s>."""
SAMPLES = 40
"""Answers to each digit that are measured."""


def measure(model: Path, seed: int) -> float:
    """Share of right answers."""
    engine = Engine.load(model)
    prompts = [encode_prompt(engine.tokenizer, [{"role": "user", "content": digit}]) for digit in DIGITS]
    answers = engine.complete(prompts, SamplingConfig(temperature=1, max_tokens=4, seed=seed), n=SAMPLES)
    asked = [digit for digit in DIGITS for _ in range(SAMPLES)]
    return statistics.fmean(
        answer.reason == "end" and answer.text == digit for answer, digit in zip(answers, asked, strict=True)
    )


def beginner(place: Path, seed: int) -> Path:
    """A model that answers any digit with any digit."""
    chance = random.Random(seed)
    rows = [{"prompt": digit, "response": chance.choice(DIGITS)} for digit in DIGITS * 100]
    options = ["--length=32", f"--template={TEMPLATE}", "--train.steps=100", "--train.batch=32"]
    return fine_tuned(place, MODEL, rows, seed, [*options, "--train.validate_every=100"])


def over_digits(
    place: Path, seed: int, learn: Callable[[Config], dict[str, Any]], kind: type[Config], options: Sequence[str]
) -> dict[str, Any]:
    """The figures of a seed, of one way to learn."""
    model = beginner(place, seed)
    problems = place / "digits.jsonl"
    write_rows(problems, ({"prompt": digit, "answer": digit} for digit in DIGITS))
    before = measure(model, seed)
    settings = (
        *(f"--model={model}", f"--data={problems}", f"--validation={problems}", f"--out={place / 'run'}"),
        *("--max_tokens=4", "--optimizer.rate=0.002", "--schedule.name=constant"),
        *(f"--train.seed={seed}", "--train.device=cpu"),
    )
    result = learn(from_arguments(kind, [*settings, *options]))
    return {"before": before, "after": measure(place / "run", seed), "seconds": result["seconds"]}


def run(place: Path, seed: int, options: list[str]) -> dict[str, Any]:
    """The figures of a seed."""
    usual = ("--train.batch=128", "--passes=1", "--train.steps=240", "--kl=0.1", "--train.validate_every=100")
    return over_digits(place, seed, ppo, PpoConfig, [*usual, *options])


def met(figures: Mapping[str, Any]) -> dict[str, bool]:
    """Which claims the figures of all seeds meet."""
    return {
        "3 seeds": figures["runs"] >= 3,
        "begins at no more than 30%": figures["most_before"] <= 0.3,
        "at least 95% right": figures["least_after"] >= 0.95,
        "within 20 seconds": figures["most_seconds"] <= 20,
    }


def extremes(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of the figures of all seeds."""
    return {
        "most_before": max(seed["before"] for seed in found),
        "least_after": min(seed["after"] for seed in found),
    }


if __name__ == "__main__":
    over_seeds(__doc__, run, extremes, met)
