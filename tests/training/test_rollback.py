"""A run whose loss spikes goes back to its last checkpoint and past the batches that it spiked on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from seedbed.configuration import from_arguments
from seedbed.errors import ConfigError, TrainingError
from seedbed.training.config import CheckpointConfig, PretrainConfig, RollbackConfig, TrainConfig
from seedbed.training.rollback import ENOUGH, WINDOW, exceeded_median, past_trouble
from seedbed.training.run_state import RunState
from seedbed.training.trainer import Trainer
from tests.tiny import Rows, random_rows, records, tiny_run, tiny_trainer

BATCH = 4
POISONED = range(17, 20)
"""Steps whose batches have other targets than all others."""


def rows(left_out: range = range(0), poisoned: range = POISONED) -> Rows:
    """Of 60 steps: one sequence, over and over, and in the poisoned ones chance; without the batches left out."""
    pattern_NT = (torch.arange(13) + 20).repeat(60 * BATCH, 1)
    for step in poisoned:
        pattern_NT[step * BATCH : (step + 1) * BATCH] = random_rows(BATCH, 13, seed=step).tokens_NT
    kept = [row for row in range(len(pattern_NT)) if row // BATCH not in left_out]
    return Rows(pattern_NT[kept, :-1], pattern_NT[kept, 1:])


def trainer(run: Path, source: Rows | None = None, **others) -> Trainer:
    given = {"rollback": RollbackConfig(spike=1.2, skip=6), "checkpoint": CheckpointConfig(steps=5)}
    return tiny_trainer(run, source or rows(), **{"steps": 30, "validate_every": 7, **given, **others})


def weights(made: Trainer) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in made.model.parameters()]


def equal(one: Trainer, other: Trainer) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Trainer:
    made = trainer(tmp_path_factory.mktemp("whole") / "run")
    assert made.train()
    return made


def test_it_ends_as_a_run_that_never_had_the_batches_that_were_left_out(whole, tmp_path):
    """The spike of step 18 sends it back to step 15 and past batches 15 to 20."""
    assert (whole.progress.rollbacks, whole.progress.skipped_batches) == (1, 6)
    clean = trainer(tmp_path / "clean", rows(left_out=range(15, 21)))
    assert clean.train() and clean.progress.rollbacks == 0
    assert equal(whole, clean)


def test_metrics_are_those_of_the_way_that_was_gone_on_and_say_what_was_left_out(whole):
    lines = [line for line in records(whole.run) if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, 31))
    assert all(line["loss"] < 4 for line in lines[15:])
    assert all("rollbacks" not in line for line in lines[:15])
    assert {(line["rollbacks"], line["skipped_batches"]) for line in lines[15:]} == {(1, 6)}


def test_without_being_asked_a_run_goes_through_its_spike(tmp_path):
    made = trainer(tmp_path / "run", rollback=RollbackConfig())
    assert made.train() and made.progress.rollbacks == 0 and not made.checkpoints.path(0).exists()
    assert max(line["loss"] for line in records(made.run)[15:] if "loss" in line) > 5


@pytest.mark.parametrize("cut", [3, 15, 16, 17, 20, 23])
def test_a_run_cut_anywhere_goes_on_to_the_same_bits(cut, whole, tmp_path):
    """After `cut` steps done, those of the way that was left among them; what was not saved is lost."""
    first = trainer(tmp_path / "run")
    first.save()
    for _ in range(cut):
        first.run_step()
    first.checkpoints.wait()
    second = trainer(tmp_path / "run")
    second.resume()
    assert second.train() and equal(second, whole)
    assert (second.run / "metrics.jsonl").read_bytes() == (whole.run / "metrics.jsonl").read_bytes()
    assert second.progress == whole.progress


def test_a_spike_before_the_first_checkpoint_goes_back_to_the_beginning(tmp_path):
    source = rows(poisoned=range(12, 13))
    made = trainer(tmp_path / "run", source, checkpoint=CheckpointConfig(steps=29), steps=20)
    assert made.train() and made.progress.skipped_batches == 13  # up to the spike, though fewer were asked for
    clean = trainer(tmp_path / "clean", rows(left_out=range(13), poisoned=range(12, 13)), steps=20)
    assert clean.train() and equal(made, clean)


def test_a_run_goes_back_so_often_and_then_ends(tmp_path):
    """Wherever it goes on, the loss jumps there: no batch is to blame."""
    made = trainer(tmp_path / "run", rows(poisoned=range(17, 60)), steps=40)
    with pytest.raises(TrainingError, match="after 3 rollbacks"):
        made.train()
    assert made.progress.rollbacks == 3 and made.checkpoints.steps()[-1] == 15


def test_steps_that_are_not_finite_are_left_behind_as_well(tmp_path, monkeypatch):
    """The weights may be what is broken: those of the checkpoint are not."""
    loss = Trainer.loss

    def broken(self, where, batch):
        found = loss(self, where, batch)
        poisoned = where.first // BATCH in range(7, 9)
        return type(found)(found.sum * float("nan"), found.units) if poisoned else found

    monkeypatch.setattr(Trainer, "loss", broken)
    made = trainer(tmp_path / "run", rows(poisoned=range(0)), nonfinite_limit=2, steps=12)
    assert made.train() and (made.progress.rollbacks, made.progress.skipped_batches) == (1, 6)
    assert not any("left_out" in line for line in records(made.run))


def test_no_checkpoint_is_made_amid_steps_that_are_not_finite(tmp_path, monkeypatch, caplog):
    """One would be due at step 10; the run goes back to the one from before the trouble, with all of its chances."""
    loss = Trainer.loss

    def broken(self, where, batch):
        found = loss(self, where, batch)
        poisoned = where.first // BATCH in range(7, 12)
        return type(found)(found.sum * float("nan"), found.units) if poisoned else found

    monkeypatch.setattr(Trainer, "loss", broken)
    made = trainer(tmp_path / "run", rows(poisoned=range(0)), nonfinite_limit=4, steps=12)
    assert made.train() and made.progress.rollbacks == 1
    assert "up to step 11: back to step 5, past 6 batches" in caplog.text


def test_steps_that_were_not_finite_are_counted_anew_after_a_rollback():
    config = TrainConfig(steps=30, rollback=RollbackConfig(spike=2))
    troubled = RunState(step=9, skipped_in_row=config.nonfinite_limit)
    assert past_trouble(troubled, RunState(step=7, skipped_in_row=3), config).skipped_in_row == 0


def test_what_was_left_out_before_stays_left_out():
    troubled = RunState(step=18, skipped_batches=6, rollbacks=1)
    config = TrainConfig(steps=30, rollback=RollbackConfig(spike=2, skip=2))
    state = past_trouble(troubled, RunState(step=15, units=9), config)
    assert state == RunState(step=15, units=9, skipped_batches=9, rollbacks=2)


def test_a_spike_is_measured_against_the_median_of_the_losses_before_it():
    flat = [1.0] * ENOUGH
    assert exceeded_median([*flat, 2.1], 2) == 1.0
    assert exceeded_median([*flat, 1.9], 2) is None
    assert exceeded_median([*flat[1:], 9.0], 2) is None  # too few
    assert exceeded_median([5.0] * 100 + [1.0] * WINDOW + [2.1], 2) == 1.0  # only the last of them
    assert exceeded_median([*(-loss for loss in flat), 9.0], 2) is None


def test_a_run_goes_on_only_with_the_rollbacks_it_began_with(tokens, tmp_path):
    given = ("--train.steps=4", "--train.checkpoint.steps=2", "--train.rollback.spike=2")
    tiny_run(tokens, tmp_path / "run", *given)
    assert (tmp_path / "run" / "checkpoints" / "step_00000004").exists()
    with pytest.raises(ConfigError, match=r"rollback\.spike"):
        tiny_run(tokens, tmp_path / "run", *given[:-1])


@pytest.mark.parametrize("setting", ["spike=0.5", "skip=0", "most=0"])
def test_a_setting_that_makes_no_sense_is_refused(setting, tokens, tmp_path):
    with pytest.raises(ConfigError, match=setting.partition("=")[0]):
        from_arguments(PretrainConfig, [f"--data.tokens={tokens}", f"--out={tmp_path}", f"--train.rollback.{setting}"])
