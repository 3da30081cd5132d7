"""A run under something that starts it again: killed, damaged, out of room, it comes to the same end."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from seedbed.errors import Alarm, CutOffError, SeedbedError, StorageError
from seedbed.runs import MANIFEST, open_folder
from seedbed.training import checkpoint
from seedbed.training.config import TrainConfig
from tests.tiny import TINY_ARGUMENTS, records, same_bits, tiny_run

ARGUMENTS = ("--train.steps=40", "--train.checkpoint.steps=4", "--train.validate_every=10", "--model.dropout=0.1")
LEAVE = (0, 2, 3, 5)
"""Exit codes after which a supervisor leaves a run alone, as docs/recovery.md says."""


@pytest.fixture(scope="module")
def whole(tokens, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    tiny_run(tokens, run, *ARGUMENTS)
    return run


def supervise(command: list[str], run: Path, kills: list[int]) -> list[int]:
    """Starts the command until it need not be started again; kills it so many steps after each of its beginnings."""
    codes: list[int] = []
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    while not codes or codes[-1] not in LEAVE:
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if len(codes) < len(kills):
            goal = lines(run) + kills[len(codes)]
            while process.poll() is None and lines(run) < goal:
                pass
            process.kill()
        codes.append(process.wait(120))
        assert len(codes) < 20
    return codes


def lines(run: Path) -> int:
    try:
        return (run / "metrics.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


@pytest.mark.proof
def test_a_command_killed_at_random_and_started_again_ends_in_the_same_bits(whole, tokens, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "seedbed", "pretrain", f"--data.tokens={tokens}", f"--out={run}"]
    chance = random.Random(4)
    codes = supervise([*command, *TINY_ARGUMENTS, *ARGUMENTS], run, [chance.randrange(1, 9) for _ in range(2)])
    assert codes == [-9, -9, 0]
    assert same_bits(run, whole) and (run / MANIFEST).exists()


def test_a_mistake_is_not_tried_again(tokens, tmp_path):
    command = [sys.executable, "-m", "seedbed", "pretrain", f"--data.tokens={tokens}", f"--out={tmp_path / 'run'}"]
    assert supervise([*command, "--train.steps=0"], tmp_path / "run", []) == [2]


def test_exit_codes_tell_what_to_try_again():
    kinds = {StorageError("full"): 2, CutOffError("killed"): 75, Alarm("stall", "", 4): 4, SeedbedError("wrong"): 2}
    for error, code in kinds.items():
        assert error.exit_code == code and (code in LEAVE) == (code not in (4, 75))


# The newest checkpoint -----------------------------------------------------------------------------------------------


def shorten(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)


@pytest.mark.parametrize("damage", [shorten, flip, Path.unlink])
@pytest.mark.parametrize("name", ["*.safetensors", "state.json", "seedbed.json", MANIFEST])
def test_a_newest_checkpoint_damaged_in_any_way_gives_way_to_the_one_before(
    damage, name, whole, tokens, tmp_path, caplog
):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    damage(next((run / "checkpoints" / "step_00000040").glob(name)))
    assert tiny_run(tokens, run, *ARGUMENTS)["resumed_at"] == 36
    assert "passing over" in caplog.text and "step_00000040" in caplog.text
    assert same_bits(run, whole)


# A full disk ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", ["true", "false"])
def test_a_disk_full_in_a_save_ends_the_run_and_the_one_before_is_gone_on_from(
    background, whole, tokens, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    write, saves = checkpoint.write_state, []

    def full(folder, *given):
        saves.append(folder)
        write(folder, *given)
        if len(saves) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    given = (*ARGUMENTS, f"--train.checkpoint.background={background}")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_state", full)
        with pytest.raises(StorageError, match="no space left"):
            tiny_run(tokens, run, *given)
    left = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert left == ["step_00000004", "step_00000008"]
    for name in left:
        open_folder(run / "checkpoints" / name, "checkpoint", verify="all")
    assert tiny_run(tokens, run, *given)["resumed_at"] == 8
    assert same_bits(run, whole)


# Determinism ---------------------------------------------------------------------------------------------------------


def test_a_run_is_deterministic_unless_it_is_asked_not_to_be(tokens, tmp_path):
    assert TrainConfig().deterministic
    tiny_run(tokens, tmp_path / "run", "--train.steps=1")
    assert torch.are_deterministic_algorithms_enabled()
    assert records(tmp_path / "run")
