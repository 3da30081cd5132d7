"""Of several processes each answers some of the prompts, and all learn what one alone would."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from seedbed.alignment.policy.grpo import grpo
from seedbed.alignment.policy.ppo import ppo
from seedbed.alignment.reward_models.config import RewardConfig
from seedbed.alignment.reward_models.training import reward
from seedbed.errors import ConfigError
from tests.alignment.judged import PREFERENCES, write_rows
from tests.alignment.judged import config as judged
from tests.alignment.policy.test_grpo import config
from tests.alignment.policy.test_ppo import config as ppo_config
from tests.tiny import records

STEPS = ("--train.steps=4", "--train.validate_every=2", "--optimizer.rate=0.003")


def alike(one: dict[str, Any], two: dict[str, Any]) -> bool:
    """Records, number by number, but for what rounding makes another in either."""
    return one.keys() == two.keys() and all(
        math.isclose(one[key], two[key], rel_tol=1e-4, abs_tol=1e-5) for key in one if isinstance(one[key], float)
    )


def answers(run: Path) -> list[tuple[int, str, str]]:
    """Step, prompt and text of each in the tables."""
    rows = map(json.loads, (run / "samples.jsonl").read_text().splitlines())
    return [(row["step"], row["prompt"], row["text"]) for row in rows]


@pytest.mark.parametrize(
    "settings",
    [
        ("--kl=0.1",),
        ("--kl=0.1", "--method=lora", "--lora.rank=2"),
        ("--loss=dapo", "--order=learnable"),
        ("--answers=16", "--passes=2", "--group=2", "--train.parallel=zero1"),
        ("--answers=24", "--group=8", "--train.micro_batch=3"),  # three prompts for two processes
    ],
)
def test_two_processes_learn_what_one_does(base, problems, tmp_path, settings):
    grpo(config(base, problems, tmp_path / "one", *STEPS, *settings))
    grpo(config(base, problems, tmp_path / "two", *STEPS, *settings, "--train.devices=2"))
    one, two = (records(tmp_path / name) for name in ("one", "two"))
    assert len(one) == len(two) > 4
    assert all(map(alike, one, two))
    assert answers(tmp_path / "one") == answers(tmp_path / "two") != []


def test_a_critic_and_a_coefficient_that_adapts_are_those_of_one_process(base, problems, tmp_path):
    settings = (*STEPS, "--train.steps=10", "--kl=0.1", "--kl_target=0.05", "--answers=16")  # three rollouts
    ppo(ppo_config(base, problems, tmp_path / "one", *settings))
    ppo(ppo_config(base, problems, tmp_path / "two", *settings, "--train.devices=2"))
    one, two = (records(tmp_path / name) for name in ("one", "two"))
    assert len(one) == len(two) > 4
    assert all(map(alike, one, two))


def test_a_process_without_a_prompt_asks_reward_models_of_nothing(base, problems, tmp_path):
    """One group for two processes."""
    preferences = write_rows(tmp_path / "preferences.jsonl", PREFERENCES)
    reward(judged(RewardConfig, base, preferences, tmp_path / "judge", "--train.steps=2"))
    settings = (*STEPS, "--train.batch=4", f"--reward_models.runs={tmp_path / 'judge'}")
    for name, more in (("one", ()), ("two", ("--train.devices=2",))):
        grpo(config(base, problems, tmp_path / name, *settings, *more))
    one, two = (records(tmp_path / name) for name in ("one", "two"))
    assert len(one) == len(two) > 4 and all(map(alike, one, two))


def test_a_process_without_an_answer_reads_none(base, problems, tmp_path):
    """One answer for two processes."""
    settings = (*STEPS, "--train.batch=1", "--kl=0.1")
    for name, more in (("one", ()), ("two", ("--train.devices=2",))):
        ppo(ppo_config(base, problems, tmp_path / name, *settings, *more))
    one, two = (records(tmp_path / name) for name in ("one", "two"))
    assert len(one) == len(two) > 4 and all(map(alike, one, two))


def test_each_process_runs_the_file_of_rewards(base, problems, tmp_path):
    (tmp_path / "mine.py").write_text("def short(problem, answer):\n    return -float(len(answer))\n")
    settings = (*STEPS, f"--own_rewards={tmp_path / 'mine.py'}", '--rewards={"short": 1}')
    for name, more in (("one", ()), ("two", ("--train.devices=2",))):
        grpo(config(base, problems, tmp_path / name, *settings, *more))
    one, two = (records(tmp_path / name) for name in ("one", "two"))
    assert all(map(alike, one, two)) and any(line.get("reward", 0) < 0 for line in two)


def test_a_function_of_the_process_that_starts_others_cannot_reward_in_them(base, problems, tmp_path):
    with pytest.raises(ConfigError, match="watched from the process that starts it, or rewarded"):
        grpo(
            config(base, problems, tmp_path / "run", *STEPS, "--train.devices=2", '--rewards={"short": 1}'),
            rewards={"short": lambda problem, answer: -len(answer)},
        )
