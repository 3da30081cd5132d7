"""The settings that follow from `model.depth` and `train.horizon`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from seedbed.configuration import load_config
from seedbed.data.tokens import Tokens
from seedbed.model.accounting import multiplied_parameters
from seedbed.model.config import ModelConfig
from seedbed.model.depth import Budget, Derived, derive_sizes, derive_training
from seedbed.optim.config import RATES
from seedbed.training.config import PretrainConfig
from seedbed.training.settings import CONFIG

LEFT_OUT = ("train.batch", "train.micro_batch", "train.steps", *(f"optimizer.{name}" for name in ("rate", *RATES)))
"""Keys that may follow from depth."""


def follow_depth(
    config: PretrainConfig, given: ModelConfig, folders: Sequence[Tokens], length: int
) -> tuple[PretrainConfig, list[Derived]]:
    """The settings with what follows from the depth of `given`, the model as it was asked for; `config` holds the
    resolved one. What is given wins. A run that goes on has what it began with, whatever the rules say by now.
    """
    train = config.train
    if given.depth is None:
        return _with_horizon(config.resolve(), length), []
    if (config.out / CONFIG).exists():
        earlier = load_config(config.out / CONFIG, PretrainConfig)
        return _with(config, {key: _get(earlier, key) for key in LEFT_OUT if _left_out(config, key)}).resolve(), []
    corpus = sum(part.train.n_tokens for part in folders)
    budget = Budget(
        batch=train.batch,
        micro_batch=train.micro_batch,
        steps=train.steps,
        tokens=None if train.epochs is None else train.epochs * corpus,
        timed=train.minutes is not None,
        horizon=train.horizon,
    )
    derived = derive_training(config.model, length, config.optimizer, budget)
    config = _with(config, {item.key: item.value for item in derived})
    return config.resolve(), [*derive_sizes(given, config.model), *derived]


def _with_horizon(config: PretrainConfig, length: int) -> PretrainConfig:
    """Its tokens as steps, where no other budget is given."""
    if config.train.horizon is None or config.train.budgets:
        return config
    tokens = config.train.horizon * multiplied_parameters(config.model)
    steps = max(1, round(config.train.batch_schedule.steps_for(tokens / length)))
    return replace(config, train=replace(config.train, steps=steps))


def _left_out(config: PretrainConfig, key: str) -> bool:
    counted = key == "train.steps" and bool(config.train.budgets)
    return _get(config, key) is None and not counted


def _get(config: PretrainConfig, key: str) -> Any:
    group, _, name = key.partition(".")
    return getattr(getattr(config, group), name)


def _with(config: PretrainConfig, values: dict[str, Any]) -> PretrainConfig:
    groups: dict[str, dict[str, Any]] = {"train": {}, "optimizer": {}}
    for key, value in values.items():
        group, _, name = key.partition(".")
        groups[group][name] = value
    return replace(
        config,
        train=replace(config.train, **groups["train"]),
        optimizer=replace(config.optimizer, **groups["optimizer"]),
    )
