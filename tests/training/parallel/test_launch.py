"""The command with several processes: started by torchrun or by itself, stopped, killed, failing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seedbed.errors import ConfigError
from seedbed.training.config import PretrainConfig, TrainConfig
from seedbed.training.observers.observer import Observer
from seedbed.training.parallel.launch import launch
from seedbed.training.pretrain import pretrain
from seedbed.training.trainer import Trainer
from tests.tiny import TINY_ARGUMENTS, pretrain_config, records, tiny_run, weights

GIVEN = ("--train.steps=24", "--train.checkpoint.steps=3", "--train.validate_every=24", *TINY_ARGUMENTS)


def begin(tokens: Path, run: Path, *arguments: str, by: tuple[str, ...] = ("-m", "seedbed")) -> subprocess.Popen[str]:
    command = [sys.executable, *by, "pretrain", f"--data.tokens={tokens}", f"--out={run}", *GIVEN, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, **pipes)  # type: ignore[call-overload]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def children(process: subprocess.Popen[str]) -> list[int]:
    """Those that train: forks of the one that has imported everything for them."""
    return [pid for child in _children(process.pid) for pid in _children(child)]


def _children(pid: int) -> list[int]:
    return [int(found) for found in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def steps_done(run: Path) -> int:
    return (run / "metrics.jsonl").read_bytes().count(b'"loss"') if (run / "metrics.jsonl").exists() else 0


def same_losses(run: Path, other: Path) -> bool:
    pairs = zip(records(run), records(other), strict=True)
    return all(one.get("loss", 0) == pytest.approx(two.get("loss", 0), abs=1e-4) for one, two in pairs)


@pytest.fixture(scope="module")
def by_torchrun(tokens, tmp_path_factory) -> tuple[Path, str]:
    """A run of FSDP2 with Muon, and what it said."""
    run = tmp_path_factory.mktemp("torchrun") / "run"
    by = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "seedbed")
    process = begin(tokens, run, "--json", "--train.parallel=fsdp", by=by)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return run, out


def test_torchrun_trains_with_the_losses_of_one_process_and_prints_one_result(by_torchrun, tokens, tmp_path):
    run, out = by_torchrun
    assert json.loads(out)["finished"] and len(out.splitlines()) == 1
    tiny_run(tokens, tmp_path / "alone", *GIVEN)
    assert same_losses(run, tmp_path / "alone")


def test_devices_starts_processes_whose_run_survives_the_death_of_one_in_the_same_bits(by_torchrun, tokens, tmp_path):
    """And are those of torchrun."""
    run, whole = tmp_path / "run", by_torchrun[0]
    given = ("--train.devices=2", "--train.parallel=fsdp")
    process = begin(tokens, run, *given)
    wait_until(lambda: steps_done(run) >= 5)
    os.kill(children(process)[1], signal.SIGKILL)
    _, error = process.communicate(timeout=90)
    assert process.returncode == 75
    assert [line for line in error.splitlines() if line.startswith("seedbed: ")] == [
        "seedbed: process 1 of 2 was ended by SIGKILL; so the others were ended"
    ]
    assert "Traceback" not in error and not (run / "manifest.json").exists()
    assert tiny_run(tokens, run, *GIVEN, *given)["resumed_at"] > 0
    assert weights(run) == weights(whole)
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_ctrl_c_saves_once_and_the_run_goes_on_with_one_process(tokens, tmp_path):
    run = tmp_path / "run"
    process = begin(tokens, run, "--train.devices=2", "--train.parallel=zero1", "--train.steps=3000")
    wait_until(lambda: steps_done(run) >= 2)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=90)
    assert process.returncode == 130 and "and saved; the same command goes on" in error and "Traceback" not in error
    done = json.loads((run / "result.json").read_text())["steps"]
    assert 2 <= done < 3000
    # Its length is settled; a process alone takes it up again.
    config = pretrain_config(tokens, run, *GIVEN, "--train.parallel=zero1", "--train.steps=3000")
    steps: list[int] = []
    run_step = Trainer.run_step

    def stop(trainer: Trainer) -> None:
        run_step(trainer)
        steps.append(trainer.progress.step)
        signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "run_step", stop)
        assert pretrain(config)["resumed_at"] == done
    assert steps == [done + 1]


def fail_at_the_second_ctrl_c(config: PretrainConfig) -> dict[str, Any]:
    """What a process does that finds the others gone."""
    heard: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    for times in range(2):
        wait_until(lambda: len(heard) >= times)  # noqa: B023 (done at once)
        (config.out / f"{times}.{os.environ['RANK']}").touch()
    wait_until(lambda: len(heard) >= 2)
    sys.exit(2)


def test_ctrl_c_twice_is_no_failure_of_any_process(tokens, tmp_path):
    def press() -> None:
        for times in range(2):
            wait_until(lambda: len(list(tmp_path.glob(f"{times}.*"))) == 2)  # noqa: B023 (done at once)
            os.kill(os.getpid(), signal.SIGINT)

    pressing = threading.Thread(target=press)
    pressing.start()
    with pytest.raises(KeyboardInterrupt):
        launch(fail_at_the_second_ctrl_c, pretrain_config(tokens, tmp_path, "--train.devices=2"))
    pressing.join()


def test_an_error_is_told_once(tokens, tmp_path, capfd):
    """By the process that started the others."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "something").write_text("else")
    with pytest.raises(ConfigError, match="run is not empty and holds no run"):
        tiny_run(tokens, tmp_path / "run", *GIVEN, "--train.devices=2")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"devices": 0}, "devices"),
        ({"shard_group": 2}, "shard_group divides processes under fsdp"),
        ({"parallel": "zero1", "tensor_parallel": 2}, "zero1 divides whole weights"),
        ({"precision": "int8", "tensor_parallel": 2}, "int8 products need whole weights"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        TrainConfig(**settings)


def test_a_layer_cannot_be_divided_among_one_process_and_the_run_stays_as_it_is(tokens, tmp_path):
    alone = tmp_path / "alone"
    tiny_run(tokens, alone, *GIVEN)
    before = (alone / "manifest.json").read_bytes()
    with pytest.raises(ConfigError, match=r"there is one process\nGive --train\.devices 2"):
        tiny_run(tokens, alone, *GIVEN, "--train.tensor_parallel=2")
    assert (alone / "manifest.json").read_bytes() == before


def test_observers_of_this_process_are_refused_where_others_would_be_started(tokens, tmp_path):
    config = pretrain_config(tokens, tmp_path / "run", "--train.devices=2")
    with pytest.raises(ConfigError, match=r"train\.devices is 2, but this run is watched from the process"):
        pretrain(config, [Observer()])
