"""A run that looks into itself."""

from __future__ import annotations

import math

import pytest

from seedbed.errors import ConfigError
from seedbed.training.observers.config import StatisticsConfig
from seedbed.training.statistics.statistics import Statistics
from tests.tiny import TINY, random_rows, records, tiny_trainer
from tests.training.test_trainer import Poisoned


def look(tmp_path, **train):
    trainer = tiny_trainer(tmp_path, observers=[Statistics(StatisticsConfig(every=2))], **train)
    trainer.train()
    return trainer, records(tmp_path, "statistics.jsonl")


def test_every_so_many_steps_a_line_tells_of_each_group_and_block(tmp_path):
    _, found = look(tmp_path, steps=5, validation=random_rows(4))
    assert [line.pop("step") for line in found] == [2, 4]
    groups, flows = ("embedding", "head", "matrix", "vector", "block_0"), ("rms", "max", "zeros")
    assert all(line.keys() == found[0].keys() for line in found)
    assert found[0].keys() == {
        *(f"{what}/{group}" for what in ("gradient_norm", "update_ratio") for group in groups),
        *(f"activation_{flow}/block_0" for flow in flows),
        *("attention_entropy/block_0", "logit_max", "logit_entropy"),
    }
    assert all(math.isfinite(value) and value >= 0 for line in found for value in line.values())
    assert found[0] != found[1]


def test_the_groups_together_have_the_norm_of_the_step_before_clipping(tmp_path):
    _, found = look(tmp_path, clip=1e-3)
    norms = [record["gradient_norm"] for record in records(tmp_path) if record["step"] in (2, 4)]
    for line, whole in zip(found, norms, strict=True):
        parts = [line[f"gradient_norm/{kind}"] ** 2 for kind in ("matrix", "embedding", "head", "vector")]
        assert sum(parts) ** 0.5 == pytest.approx(whole, rel=1e-4)


def test_a_step_that_was_left_out_has_neither_gradient_nor_update(tmp_path):
    trainer = tiny_trainer(tmp_path, steps=2, observers=[Statistics(StatisticsConfig(every=2))])
    trainer.objective = Poisoned(lambda call: call == 2)
    trainer.train()
    (line,) = records(tmp_path, "statistics.jsonl")
    assert not any(key.startswith(("gradient", "update")) for key in line) and "activation_rms/block_0" in line


def test_what_is_remembered_for_a_look_is_forgotten_after_it(tmp_path):
    trainer, _ = look(tmp_path, model=TINY)
    (statistics,) = trainer.observers.members
    assert not statistics.weights and not statistics.norms


def test_histograms_without_a_time_to_make_them_are_refused():
    with pytest.raises(ConfigError, match="every is left out"):
        StatisticsConfig(histograms=True)
