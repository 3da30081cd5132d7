"""A run that is asked for by its depth: what it is told, what it writes down, how it goes on."""

from __future__ import annotations

import json

import pytest

from seedbed.configuration import load_config
from seedbed.data.batches.config import TrainingDataConfig
from seedbed.errors import ConfigError
from seedbed.model.config import ModelConfig
from seedbed.optim.config import OptimizerConfig
from seedbed.training.budget import long_run
from seedbed.training.config import PretrainConfig, TrainConfig
from seedbed.training.pretrain import pretrain


def config(tokens, out, *, model=None, optimizer=None, **train) -> PretrainConfig:
    given = {"context": 16, "depth": 1} | (model or {})
    return PretrainConfig(
        out=out,
        data=TrainingDataConfig(tokens=tokens),
        model=ModelConfig(**given),
        optimizer=OptimizerConfig(**(optimizer or {})),
        train=TrainConfig(validation_rows=4, compile="off", **train),
    )


def test_a_run_holds_what_depth_made_of_it(tokens, tmp_path, capsys):
    result = pretrain(config(tokens, tmp_path / "run", steps=3))
    written = load_config(tmp_path / "run" / "config.yaml", PretrainConfig)
    assert (written.model.depth, written.model.layers, written.model.width) == (None, 1, 64)
    assert written.train.batch == result["derived"]["train.batch"]
    assert written.optimizer.matrix_rate == result["derived"]["optimizer.matrix_rate"] != 0.02
    assert written.optimizer.weight_decay > 0
    out = capsys.readouterr().out
    assert all(key in out for key in result["derived"]) and "Bergsma" in out


def test_what_is_given_stays(tokens, tmp_path):
    pretrain(config(tokens, tmp_path / "run", steps=2, batch=3, optimizer={"matrix_rate": 0.5, "weight_decay": 0.0}))
    written = load_config(tmp_path / "run" / "config.yaml", PretrainConfig)
    assert (written.train.batch, written.optimizer.matrix_rate, written.optimizer.weight_decay) == (3, 0.5, 0.0)


def test_the_same_command_goes_on_and_more_steps_keep_what_was_derived(tokens, tmp_path):
    first = config(tokens, tmp_path / "run", steps=3)
    pretrain(first)
    before = load_config(tmp_path / "run" / "config.yaml", PretrainConfig)
    assert pretrain(first)["resumed_at"] == 3
    assert load_config(tmp_path / "run" / "config.yaml", PretrainConfig) == before
    longer = pretrain(config(tokens, tmp_path / "run", steps=5))
    after = load_config(tmp_path / "run" / "config.yaml", PretrainConfig)
    assert longer["steps"] == 5
    assert (after.train.batch, after.optimizer) == (before.train.batch, before.optimizer)


def test_another_depth_is_no_continuation(tokens, tmp_path):
    pretrain(config(tokens, tmp_path / "run", steps=2))
    with pytest.raises(ConfigError, match=r"was begun with model\.layers 1, now it is 2"):
        pretrain(config(tokens, tmp_path / "run", steps=2, model={"depth": 2}))


def test_a_horizon_is_a_budget_with_and_without_depth(tokens, tmp_path):
    with_depth = pretrain(config(tokens, tmp_path / "deep", horizon=0.05))
    sizes = {"depth": None, "layers": 1, "width": 64}
    without = pretrain(config(tokens, tmp_path / "plain", horizon=0.05, model=sizes))
    assert with_depth["steps"] == with_depth["derived"]["train.steps"]
    vocabulary = json.loads((tmp_path / "plain" / "model" / "config.json").read_text())["vocab_size"]
    parameters = 4 * 64 * 64 + 3 * 64 * 192 + vocabulary * 64
    assert without["steps"] == round(0.05 * parameters / (16 * 16))


def test_steps_win_over_a_horizon(tokens, tmp_path):
    assert pretrain(config(tokens, tmp_path / "run", horizon=1e6, steps=2))["steps"] == 2


def test_epochs_are_a_horizon_too(tokens, tmp_path):
    result = pretrain(config(tokens, tmp_path / "run", epochs=0.2))
    assert "train.steps" not in result["derived"] and result["derived"]["train.batch"] >= 1


def test_without_depth_everything_is_as_it_was(tokens, tmp_path):
    sizes = {"depth": None, "layers": 1, "width": 64}
    result = pretrain(config(tokens, tmp_path / "run", steps=2, model=sizes))
    written = load_config(tmp_path / "run" / "config.yaml", PretrainConfig)
    assert "derived" not in result
    assert written.train.batch == 16
    rates = written.optimizer
    assert (rates.matrix_rate, rates.embedding_rate, rates.head_rate, rates.vector_rate) == (0.02, 0.05, 0.004, 0.01)
    assert rates.weight_decay == 0


def test_a_run_of_days_is_said_so():
    assert long_run(3600) is None
    assert "3.0 days or more" in long_run(3 * 86_400)
