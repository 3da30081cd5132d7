"""Weights that are named rest; the others learn."""

from __future__ import annotations

import pytest
import torch

from seedbed.errors import ConfigError
from seedbed.model.folder import load_model
from seedbed.tuning.finetune import finetune
from tests.tuning.test_finetune import config, facts


@pytest.mark.parametrize("select", ["last", "average"])
def test_what_is_frozen_stays_to_the_bit_and_all_else_moves(select, base, tmp_path):
    data = facts(tmp_path / "d.jsonl")
    given = ("--train.steps=3", f"--train.select={select}", "--freeze=[embedding, blocks.0, '*down*']")
    finetune(config(base, data, tmp_path / "out", *given))
    before, after = load_model(base)[0].state_dict(), load_model(tmp_path / "out")[0].state_dict()
    frozen = {name for name in before if name.startswith(("embedding.", "blocks.0.")) or "down" in name}
    assert {name for name, weight in before.items() if torch.equal(weight, after[name])} == frozen


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        ("[embeding]", "freeze has 'embeding', which fits no weight; did you mean embedding?"),
        ("['*']", "freeze leaves nothing to learn"),
    ],
)
def test_patterns_that_fit_nothing_or_all_are_refused(patterns, said, base, tmp_path):
    data = facts(tmp_path / "d.jsonl")
    with pytest.raises(ConfigError) as told:
        finetune(config(base, data, tmp_path / "out", "--train.steps=1", f"--freeze={patterns}"))
    assert told.value.problem == said
