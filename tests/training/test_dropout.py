"""A run with dropout is as much the same in every repetition as one without."""

from __future__ import annotations

from dataclasses import replace

import torch

from tests.tiny import TINY, tiny_trainer

DROPPING = replace(TINY, dropout=0.3)


def weights(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


def trained(run, steps, **train):
    trainer = tiny_trainer(run, model=DROPPING, **train)
    for _ in range(steps):
        trainer.step()
    return trainer


def test_what_is_dropped_follows_from_the_seed_alone(tmp_path):
    first = weights(trained(tmp_path / "first", 3))
    torch.rand(17)
    assert torch.equal(weights(trained(tmp_path / "again", 3)), first)
    assert not torch.equal(weights(trained(tmp_path / "other", 3, seed=1)), first)


def test_each_step_drops_something_else(tmp_path):
    trainer = trained(tmp_path, 1)
    first = torch.get_rng_state()
    trainer.step()
    assert not torch.equal(torch.get_rng_state(), first)


def test_a_resumed_run_ends_in_the_same_bits(tmp_path):
    whole = weights(trained(tmp_path / "whole", 4))
    trained(tmp_path / "broken", 2).save()
    torch.rand(17)
    resumed = tiny_trainer(tmp_path / "broken", model=DROPPING)
    assert resumed.resume() == 2
    resumed.step()
    resumed.step()
    assert torch.equal(weights(resumed), whole)
