"""PPO: a policy and its critic, which learn from each answer what every token of it was worth (Schulman et al. 2017).

The critic is a score head on the policy's own blocks. A critic of its own would be a second model to hold, to read and
to checkpoint, of which a machine that trains one seldom has room; the price is that its error moves the blocks too,
which `value_weight` keeps small.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from seedbed.alignment.policy.config import PpoConfig
from seedbed.alignment.policy.credit import EpisodeCredit, Potential
from seedbed.alignment.policy.learning import Learning
from seedbed.alignment.policy.objective import EpisodeObjective, PolicyLoss
from seedbed.alignment.rewards.rules import Reward
from seedbed.training.observers.observer import Observer
from seedbed.training.parallel.launch import in_parallel


@in_parallel
def ppo(
    config: PpoConfig, observers: Sequence[Observer] = (), rewards: Mapping[str, Reward] | None = None
) -> dict[str, Any]:
    """Trains a model on problems; returns the result that `result.json` holds.

    `observers` watch it beside those that the config asks for; `rewards` are rules that its config may name, too.
    """
    began = time.perf_counter()
    config = config.resolve()
    learning = Learning(config, 1, 1, rewards)
    rows_at_once, potential = config.train.micro_batch or config.train.batch, None
    if learning.judge is not None and config.shaping.potential:
        potential = Potential(learning.judge.models, config.shaping.potential, rows_at_once)
    credit = EpisodeCredit(
        kl=config.kl,
        target=config.kl_target,
        horizon=config.kl_horizon,
        discount=config.discount,
        decay=config.decay,
        whiten=config.whiten,
        bootstraps=config.cut == "goes_on",
        rows_at_once=rows_at_once,
        potential=potential,
    )
    source = learning.source(credit)
    policy = PolicyLoss(
        level="token",
        normaliser="token",
        clip_low=config.clip,
        clip_high=config.clip,
        kl=0.0,  # it is in the reward
        estimator="k1",
        temperature=config.temperature,
        longest=learning.config.max_tokens,
        leaves_out_cut=False,
        has_reference=source.compares,
    )
    objective = EpisodeObjective(
        policy,
        source.rewards.names,
        source.rewards.weights,
        source.rewards.shaping.names,
        credit=credit,
        value_weight=config.value_weight,
        value_clip=config.value_clip or None,
    )
    return learning.run("ppo", source, objective, observers, began, has_critic=True)
