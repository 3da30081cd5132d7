"""A checkpoint is loaded when every byte is the one that was written, into the model and data it belongs to, or not at
all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from seedbed.errors import CorruptionError, DataError, SeedbedError, StorageError
from seedbed.optim.config import USUAL, OptimizerConfig
from seedbed.runs import MANIFEST
from seedbed.training import checkpoint
from seedbed.training.config import CheckpointConfig
from seedbed.training.trainer import Trainer
from tests.damages import DAMAGES, damages
from tests.tiny import TINY, random_rows, tiny_trainer


def state(trainer: Trainer) -> list[torch.Tensor]:
    """Copies of all tensors that training moves."""
    tensors = list(trainer.model.parameters())
    for parameter in trainer.model.parameters():
        for optimizer in trainer.optimizers:
            tensors += [value for _, value in sorted(optimizer.state.get(parameter, {}).items())]
    return [tensor.detach().clone() for tensor in tensors]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", USUAL)
def test_a_checkpoint_gives_back_every_bit(name, tmp_path):
    optimizer = OptimizerConfig(name=name)
    one = tiny_trainer(tmp_path / "run", validation=random_rows(4, seed=1), optimizer=optimizer)
    one.train()
    one.checkpoints.drop_after(0)
    one.save()
    other = tiny_trainer(tmp_path / "run", optimizer=optimizer)
    assert not equal(state(one), state(other))
    assert other.resume() == 4
    assert equal(state(one), state(other))
    assert other.progress == one.progress and one.progress.units == 4 * 4 * 12
    one.step()
    torch.rand(3)  # what chance does in a step is the step's own
    other.step()
    assert equal(state(one), state(other))


def test_a_checkpoint_holds_no_pickle(tmp_path):
    trainer = tiny_trainer(tmp_path / "run")
    trainer.train()
    names = {path.suffix for path in (tmp_path / "run" / "checkpoints").rglob("*") if path.is_file()}
    assert names == {".json", ".safetensors"}


def test_metrics_and_every_file_of_a_checkpoint_are_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    """Else a machine that loses its power may keep the name and lose what it stands for."""
    trainer = tiny_trainer(tmp_path / "run", checkpoint=CheckpointConfig(steps=100))
    trainer.run_step()
    synced: list[int] = []
    before: set[int] = set()
    fsync, rename = os.fsync, os.rename

    def note(handle: int) -> None:
        synced.append(os.fstat(handle).st_ino)
        fsync(handle)

    def publish(old: Path, new: Path) -> None:
        before.update(synced)
        rename(old, new)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "rename", publish)
    trainer.save()
    folder = trainer.checkpoints.path(1)
    for path in (trainer.metrics.path, folder, *folder.iterdir()):
        assert path.stat().st_ino in before, path.name
    assert synced[-1] == folder.parent.stat().st_ino  # and the name itself, after


# In the background ---------------------------------------------------------------------------------------------------


def test_training_goes_on_while_a_checkpoint_of_an_earlier_step_is_written(tmp_path, monkeypatch):
    trainer = tiny_trainer(tmp_path / "run", checkpoint=CheckpointConfig(steps=100))
    trainer.run_step()
    expected, went_on, write = state(trainer), threading.Event(), checkpoint.write_state

    def held_up(*given: object) -> None:
        assert went_on.wait(60)
        write(*given)

    monkeypatch.setattr(checkpoint, "write_state", held_up)
    trainer.save(background=True)
    assert trainer.checkpoints.steps() == []
    trainer.run_step()
    went_on.set()
    trainer.checkpoints.wait()
    other = tiny_trainer(tmp_path / "run")
    assert other.resume() == 1 and equal(state(other), expected) and not equal(state(trainer), expected)


def test_what_goes_wrong_in_the_background_is_raised_at_the_next_save_and_the_previous_one_stays(tmp_path, monkeypatch):
    trainer = tiny_trainer(tmp_path / "run", checkpoint=CheckpointConfig(steps=1, keep=1))
    trainer.run_step()
    trainer.checkpoints.wait()

    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_state", full)
        trainer.run_step()
        with pytest.raises(StorageError, match=r"no space left on the disk while writing .*step_00000002"):
            trainer.run_step()
    assert trainer.checkpoints.steps() == [1] and not list(trainer.checkpoints.folder.glob(".*"))
    trainer.save()
    assert trainer.checkpoints.steps() == [3]


# Corruption ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    trainer = tiny_trainer(run, checkpoint=CheckpointConfig(steps=100))
    for _ in range(2):
        trainer.run_step()
        trainer.run_step()
        trainer.save()
    return run


def test_of_250_random_damages_to_a_checkpoint_each_is_named_or_does_no_harm(trained, tmp_path):
    """Those to the token store are 250 more."""
    folder, other = (trained / "checkpoints" / f"step_{step:08d}" for step in (4, 2))
    assert {path.name for path in folder.iterdir()} > {MANIFEST, "state.json", "seedbed.json"}
    whole, found = tiny_trainer(trained), Counter()
    whole.checkpoints.load(4, whole.model, whole.optimizers, "rows")
    trainer = tiny_trainer(tmp_path)
    fresh = state(trainer)
    for damage in damages(folder, other, tmp_path / "checkpoints" / "step_00000004", count=250, seed=4):
        try:
            assert trainer.checkpoints.load(4, trainer.model, trainer.optimizers, "rows").step == 4
        except SeedbedError as error:
            assert "step_00000004" in str(error), (damage, str(error))
            assert equal(state(trainer), fresh), damage
            found[damage.kind] += 1
        else:
            assert not damage.harmed and equal(state(trainer), state(whole)), damage
            trainer = tiny_trainer(tmp_path)
    assert all(found[kind] >= 5 for kind in DAMAGES if kind != "add") and found["add"], found


def test_a_checkpoint_under_the_name_of_another_step_is_refused(trained, tmp_path):
    shutil.copytree(trained / "checkpoints", tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / "checkpoints" / "step_00000004").rename(tmp_path / "run" / "checkpoints" / "step_00000009")
    trainer = tiny_trainer(tmp_path / "run")
    with pytest.raises(CorruptionError, match="step_00000009 holds the state of step 4"):
        trainer.checkpoints.load(9, trainer.model, trainer.optimizers, "rows")


# Whose it is ---------------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_other_data_is_refused(trained):
    rows = random_rows(16)
    rows.fingerprint = "other rows"
    trainer = tiny_trainer(trained, rows)
    before = state(trainer)
    with pytest.raises(DataError, match="was trained on other data"):
        trainer.resume()
    assert equal(state(trainer), before)


@pytest.mark.parametrize(
    ("key", "value"), [("layers", 2), ("width", 32), ("ff_width", 64), ("rope_base", 500.0), ("tied", True)]
)
def test_a_checkpoint_of_another_architecture_is_refused_with_the_key(key, value, trained):
    trainer = tiny_trainer(trained, model=replace(TINY, head_width=8, **{key: value}))
    before = state(trainer)
    with pytest.raises(DataError, match=f"another architecture: its {key} is {getattr(TINY, key)}.* is {value}"):
        trainer.resume()
    assert equal(state(trainer), before)
    assert trainer.checkpoints.steps() == [2, 4]  # and nothing was removed


def test_state_of_another_version_is_told_as_such(trained, tmp_path):
    from seedbed.runs import seal

    shutil.copytree(trained, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints" / "step_00000004"
    values = json.loads((folder / "state.json").read_text()) | {"later": 1}
    (folder / "state.json").write_text(json.dumps(values))
    seal(folder, "checkpoint", config={"data": "rows"})
    trainer = tiny_trainer(tmp_path / "run")
    with pytest.raises(DataError, match=r"state\.json: later is not known to this version"):
        trainer.checkpoints.load(4, trainer.model, trainer.optimizers, "rows")


# Which are kept ------------------------------------------------------------------------------------------------------


def test_the_newest_and_the_best_are_kept(tmp_path):
    trainer = tiny_trainer(tmp_path / "run")
    for step in range(1, 7):
        trainer.run_step()
        trainer.progress = replace(trainer.progress, best_step=2 if step >= 2 else None)
        trainer.save()
    assert trainer.checkpoints.steps() == [2, 5, 6]  # keep is 2


def test_the_rest_of_a_removal_that_was_cut_short_is_removed(tmp_path):
    trainer = tiny_trainer(tmp_path / "run")
    for _ in range(3):
        trainer.run_step()
        trainer.save()
    half = trainer.checkpoints.path(1)
    half.mkdir(exist_ok=True)
    (half / "state.json").write_text("{}")
    trainer.run_step()
    trainer.save()
    assert sorted(path.name for path in trainer.checkpoints.folder.iterdir()) == ["step_00000003", "step_00000004"]


def test_a_removal_takes_the_manifest_away_first(tmp_path, monkeypatch):
    """So a process that dies in it leaves nothing that claims to be complete."""
    trainer = tiny_trainer(tmp_path / "run")
    trainer.run_step()
    trainer.save()

    def die(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", die)
    with pytest.raises(KeyboardInterrupt):
        trainer.checkpoints.drop_after(0)
    assert trainer.checkpoints.path(1).is_dir() and trainer.checkpoints.steps() == []
