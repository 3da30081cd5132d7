"""A checkpoint is loaded when every byte is the one that was written, into the model and data it belongs to, or not at
all."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from seedbed.errors import CorruptionError, DataError, SeedbedError
from seedbed.optim.config import OptimizerConfig
from seedbed.runs import MANIFEST
from seedbed.training.config import CheckpointConfig
from seedbed.training.trainer import Trainer
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


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_a_checkpoint_gives_back_every_bit(name, tmp_path):
    optimizer = OptimizerConfig(name=name)
    one = tiny_trainer(tmp_path / "run", validation=random_rows(4, seed=1), optimizer=optimizer)
    one.train()
    noise = torch.rand(3)
    one.checkpoints.drop_after(0)
    one.save()
    after = torch.rand(3)
    other = tiny_trainer(tmp_path / "run", optimizer=optimizer)
    assert not equal(state(one), state(other))
    assert other.resume() == 4
    assert equal(state(one), state(other))
    assert other.progress == one.progress and one.progress.units == 4 * 4 * 12
    assert torch.equal(torch.rand(3), after) and not torch.equal(noise, after)  # the random state too


def test_a_checkpoint_holds_no_pickle(tmp_path):
    trainer = tiny_trainer(tmp_path / "run")
    trainer.train()
    names = {path.suffix for path in (tmp_path / "run" / "checkpoints").rglob("*") if path.is_file()}
    assert names == {".json", ".safetensors"}


# Corruption ----------------------------------------------------------------------------------------------------------


def flip(raw: bytearray, chance: random.Random) -> None:
    raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)


def truncate(raw: bytearray, chance: random.Random) -> None:
    del raw[chance.randrange(len(raw)) :]


def extend(raw: bytearray, chance: random.Random) -> None:
    raw += chance.randbytes(chance.choice([1, 2, 8, 64, 4096]))


def zero(raw: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(raw))
    raw[start : start + 64] = bytes(len(raw[start : start + 64]))


def swap(raw: bytearray, chance: random.Random) -> None:
    size = max(1, len(raw) // chance.choice([2, 3, 8]))
    one, other = chance.sample(range(len(raw) // size), 2)
    here, there = slice(one * size, (one + 1) * size), slice(other * size, (other + 1) * size)
    raw[here], raw[there] = raw[there], raw[here]


def delete(path: Path, chance: random.Random) -> None:
    path.unlink()


def exchange(path: Path, chance: random.Random) -> None:
    """For the same file of another checkpoint."""
    shutil.copy(path.parent.parent / "step_00000002" / path.name, path)


def in_place(change: Callable[[bytearray, random.Random], None]) -> Callable[[Path, random.Random], None]:
    def apply(path: Path, chance: random.Random) -> None:
        raw = bytearray(path.read_bytes())
        change(raw, chance)
        path.write_bytes(raw)

    return apply


DAMAGES = {
    **{change.__name__: in_place(change) for change in (flip, truncate, extend, zero, swap)},
    "delete": delete,
    "exchange": exchange,
}
FILES = 5
"""Of a checkpoint: manifest, tensors, their index, state and model config."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    trainer = tiny_trainer(run, checkpoint=CheckpointConfig(steps=100))
    for _ in range(2):
        trainer.run_step()
        trainer.run_step()
        trainer.save()
    return run


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_to_a_checkpoint_is_detected_and_named(damage, trained, tmp_path, caplog):
    """35 a kind, 7 a file: with those of the token store, more than 500 in all."""
    folder = trained / "checkpoints" / "step_00000004"
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == FILES and MANIFEST in names and "state.json" in names
    model = tiny_trainer(tmp_path / "fresh")
    model.checkpoints = tiny_trainer(trained).checkpoints
    before = state(model)
    chance = random.Random(f"damage {damage}")
    for name in names:
        for _ in range(7):
            kept = (folder / name).read_bytes()
            DAMAGES[damage](folder / name, chance)
            try:
                changed = not (folder / name).exists() or (folder / name).read_bytes() != kept
                if changed:
                    with pytest.raises(SeedbedError, match="step_00000004"):
                        model.checkpoints.load(4, model.model, model.optimizers, "rows")
                    assert equal(state(model), before)
            finally:
                (folder / name).write_bytes(kept)
    assert model.checkpoints.load(4, model.model, model.optimizers, "rows").step == 4  # whole again


def test_the_damages_change_most_files_they_touch(trained, tmp_path):
    """Else the test above would detect nothing, in silence."""
    folder = trained / "checkpoints" / "step_00000004"
    untouched = []
    for damage, apply in DAMAGES.items():
        for path in sorted(folder.iterdir()):
            (tmp_path / "step_00000004").mkdir(exist_ok=True)
            shutil.copytree(folder.parent / "step_00000002", tmp_path / "step_00000002", dirs_exist_ok=True)
            copy = Path(shutil.copy(path, tmp_path / "step_00000004"))
            apply(copy, random.Random(1))
            if copy.exists() and copy.read_bytes() == path.read_bytes():
                untouched.append((damage, path.name))
    # Two checkpoints of a run share their model's config and the layout of their tensors.
    assert untouched == [("exchange", "model.safetensors.index.json"), ("exchange", "seedbed.json")]


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
