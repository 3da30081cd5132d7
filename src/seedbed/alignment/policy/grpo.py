"""GRPO and its family: several answers to each prompt, learned from by how much better than each other they were."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from seedbed.alignment.policy.choices import Estimator
from seedbed.alignment.policy.config import GrpoConfig
from seedbed.alignment.policy.credit import GroupCredit
from seedbed.alignment.policy.learning import Learning
from seedbed.alignment.policy.objective import PolicyLoss, PolicyObjective
from seedbed.alignment.rewards.rules import Reward
from seedbed.training.observers.observer import Observer
from seedbed.training.parallel.launch import in_parallel


@in_parallel
def grpo(
    config: GrpoConfig, observers: Sequence[Observer] = (), rewards: Mapping[str, Reward] | None = None
) -> dict[str, Any]:
    """Trains a model on problems; returns the result that `result.json` holds.

    `observers` watch it beside those that the config asks for; `rewards` are rules that its config may name, too.
    """
    began = time.perf_counter()
    config = config.resolve()
    estimator: Estimator = config.kl_estimator
    in_reward = config.kl if estimator == "k1" else 0.0
    learning = Learning(config, config.group, config.attempts, rewards)
    source = learning.source(GroupCredit(config.group, config.baseline, config.scale, in_reward))
    policy = PolicyLoss(
        level=config.level,
        normaliser=config.normaliser,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        kl=config.kl,
        estimator=estimator,
        temperature=config.temperature,
        longest=learning.config.max_tokens,
        leaves_out_cut=config.leave_out_cut,
        has_reference=source.compares,
    )
    objective = PolicyObjective(policy, source.rewards.names, source.rewards.weights, source.rewards.shaping.names)
    return learning.run("grpo", source, objective, observers, began)
