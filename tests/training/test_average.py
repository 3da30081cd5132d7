"""The average of the weights is the weighted mean of what they were after each step."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from seedbed.errors import ConfigError, CorruptionError
from seedbed.training.average import WeightAverage
from seedbed.training.config import AverageConfig, TrainConfig
from seedbed.training.trainer import Trainer
from tests.tiny import random_rows, records, tiny_run, tiny_trainer, weights


@pytest.mark.parametrize("after", [0.0, 0.25])
@pytest.mark.parametrize("decay", [0.0, 0.6, 0.99, 1.0])
def test_the_average_is_the_mean_written_out(decay, after):
    model = torch.nn.Linear(3, 2).double()
    average = WeightAverage(dict(model.named_parameters()), AverageConfig(decay=decay, after=after), steps=12)
    seen = []
    for step in range(1, 13):
        torch.nn.init.normal_(model.weight)
        average.update(step)
        if step <= 12 * after:
            continue
        seen.append(model.weight.detach().clone())
        shares = [decay**age for age in reversed(range(len(seen)))]
        mean = sum(share * weight for share, weight in zip(shares, seen, strict=True)) / sum(shares)
        torch.testing.assert_close(average.tensors["average.weight"], mean, rtol=0, atol=1e-12)


def test_validation_sees_the_average_and_training_never_does(tmp_path):
    """The weights after each step are those of a run without an average, and the validation loss is another."""
    runs = {
        select: tiny_trainer(tmp_path / select, validation=random_rows(4, seed=1), validate_every=1, select=select)
        for select in ("last", "average")
    }
    for trainer in runs.values():
        trainer.train()
    for one, other in zip(*(trainer.model.parameters() for trainer in runs.values()), strict=True):
        assert torch.equal(one, other)
    plain, averaged = ([r["val_loss"] for r in records(tmp_path / name) if "val_loss" in r] for name in runs)
    assert plain[:2] == averaged[:2] and not set(plain[2:]) & set(averaged[2:])  # the mean of one step is that step
    trainer = runs["average"]
    with trainer.average.in_model(4):
        assert trainer.validate()["loss"] == pytest.approx(plain[-1])  # exchanged twice
    own = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.average.exchange(4)
    assert all(map(torch.equal, trainer.model.parameters(), trainer.average.weights.values()))
    assert all(map(torch.equal, own, trainer.average.tensors.values()))


def test_the_average_becomes_the_model_and_a_run_that_is_stopped_ends_in_the_same(tokens, tmp_path, monkeypatch):
    arguments = ("--train.steps=8", "--train.select=average", "--train.average.decay=0.9", "--train.average.after=0.25")
    tiny_run(tokens, tmp_path / "whole", *arguments)
    tiny_run(tokens, tmp_path / "last", "--train.steps=8")
    assert weights(tmp_path / "whole") != weights(tmp_path / "last")
    step = Trainer.run_step

    for stop in (1, 5):
        broken = tmp_path / f"broken {stop}"

        def stopped(trainer: Trainer, stop: int = stop) -> None:
            step(trainer)
            if trainer.progress.step == stop:
                os.kill(os.getpid(), signal.SIGTERM)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "run_step", stopped)
            assert not tiny_run(tokens, broken, *arguments)["finished"]
        assert tiny_run(tokens, broken, *arguments)["resumed_at"] == stop
        assert weights(broken) == weights(tmp_path / "whole")
        assert (broken / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_a_checkpoint_without_the_average_is_told(tmp_path):
    trainer = tiny_trainer(tmp_path)
    trainer.train()
    with pytest.raises(CorruptionError, match=r"does not hold average\.embedding\.weight"):
        tiny_trainer(tmp_path, select="average").resume()


def test_a_setting_of_an_average_that_nobody_takes_is_refused():
    with pytest.raises(ConfigError, match="average is for select average, not best"):
        TrainConfig(select="best", average=AverageConfig(decay=0.5))
