"""Claim: GRPO takes the model of `ppo_copy.py`, which says any digit, to the digit that it was asked in at least
90% of answers within 10 seconds on one core of a CPU, in 150 steps of 64 answers, for each of 3 seeds.

Defaults of `seedbed grpo` but for the rate and its schedule, which are those of that benchmark; the reward is `exact`
alone. Right and seconds are as there.
Run: python benchmarks/grpo_copy.py --json   (about half a minute on 1 core). Options of `seedbed grpo` change it.
Ends with exit code 1 when a claim is not met.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.ppo_copy import extremes, over_digits
from benchmarks.seeds import over_seeds

from seedbed.alignment.policy.config import GrpoConfig
from seedbed.alignment.policy.grpo import grpo


def run(place: Path, seed: int, options: list[str]) -> dict[str, Any]:
    """The figures of a seed."""
    usual = ("--train.batch=64", "--train.steps=150", "--train.validate_every=150")
    return over_digits(place, seed, grpo, GrpoConfig, [*usual, *options])


def met(figures: Mapping[str, Any]) -> dict[str, bool]:
    """Which claims the figures of all seeds meet."""
    return {
        "3 seeds": figures["runs"] >= 3,
        "begins at no more than 30%": figures["most_before"] <= 0.3,
        "at least 90% right": figures["least_after"] >= 0.9,
        "within 10 seconds": figures["most_seconds"] <= 10,
    }


if __name__ == "__main__":
    over_seeds(__doc__, run, extremes, met)
