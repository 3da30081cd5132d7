"""A run that is killed, stopped or taken up again ends in the same bits as one that was left alone."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from seedbed.configuration import from_arguments, load_config, save_config
from seedbed.data.config import PrepareConfig, TokenizeConfig
from seedbed.data.prepare import prepare
from seedbed.data.tokenize import tokenize
from seedbed.errors import ConfigError, CorruptionError, DataError, SeedbedError, StorageError
from seedbed.model.folder import load_model
from seedbed.optim.config import ScheduleConfig
from seedbed.optim.schedules import rate_multiple
from seedbed.runs import MANIFEST, lock, open_folder
from seedbed.training.budget import Costs
from seedbed.training.config import CheckpointConfig, PretrainConfig
from seedbed.training.interruption import Interruption
from seedbed.training.pretrain import pretrain
from seedbed.training.trainer import StepReport, Trainer
from tests.deaths import at_call, killed_at_call
from tests.tiny import TINY_ARGUMENTS, pretrain_config, records, same_bits, tiny_run, tiny_trainer, weights

STEPS, STOPPED = 30, 3
COMMON = (
    *(f"--train.steps={STEPS}", "--train.micro_batch=3", "--train.validate_every=6", "--train.patience=50"),
    *("--train.checkpoint.steps=5", "--train.checkpoint.on_improvement=true", "--train.clip=0.5"),
)
ARGUMENTS = {
    "muon": (*COMMON, "--optimizer.name=muon", "--optimizer.weight_decay=0.1"),
    "adamw": (*COMMON, "--optimizer.name=adamw", "--schedule.name=cosine", "--train.select=best"),
    "normuon": (*COMMON, "--optimizer.name=normuon", "--optimizer.polynomial=polar_express", "--train.select=average"),
    "lion": (*COMMON, "--optimizer.name=lion", "--schedule.name=one_cycle", "--optimizer.layer_decay=0.9"),
    "adafactor": (*COMMON, "--optimizer.name=adafactor", "--schedule.name=inverse_sqrt", "--train.average.decay=1",
                  "--train.select=average", "--train.average.after=0.3"),
    "sgd": (*COMMON, "--optimizer.name=sgd", "--optimizer.weight_decay=0.1", "--optimizer.cautious_decay=true",
            "--train.batches=[{from_step: 7, batch: 6}]"),
    "experts": (*COMMON, "--model.experts=4", "--model.experts_shared=1", "--model.router=sigmoid",
                "--model.balance_rate=0.01"),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tokens, tmp_path_factory) -> dict[str, Path]:
    """A run of each kind that nobody disturbed."""
    place = tmp_path_factory.mktemp("whole")
    for name, arguments in ARGUMENTS.items():
        tiny_run(tokens, place / name, *arguments)
    return {name: place / name for name in ARGUMENTS}


# Kill -9 -------------------------------------------------------------------------------------------------------------


def steps_done(run: Path) -> int:
    """As the run's own records say."""
    try:
        return max(0, (run / "metrics.jsonl").read_bytes().count(b'"loss"'))
    except FileNotFoundError:
        return 0


def at_step(step: int, pause: float) -> Callable[[Path], bool]:
    """So many seconds after that step was noted."""

    def reached(run: Path) -> bool:
        if steps_done(run) < step:
            return False
        time.sleep(pause)
        return True

    return reached


def in_checkpoint(step: int) -> Callable[[Path], bool]:
    """While a checkpoint is being written, of that step or a later one."""

    def reached(run: Path) -> bool:
        return steps_done(run) >= step and any((run / "checkpoints").glob(".step_*.partial-*"))

    return reached


def newest_checkpoint(run: Path) -> int:
    """Step of the newest complete checkpoint, as the folder says; 0 when there is none."""
    whole = (run / "checkpoints").glob(f"step_*/{MANIFEST}")
    return max((int(path.parent.name.removeprefix("step_")) for path in whole), default=0)


def random_moments(seed: int, count: int) -> list[tuple[str, int, float]]:
    chance = random.Random(seed)
    kinds = ["step", "step", "checkpoint"]
    return [(chance.choice(kinds), chance.randrange(1, STEPS - 6), chance.uniform(0, 0.02)) for _ in range(count)]


def forked(config: PretrainConfig) -> int:
    """A process of its own that trains, and ends with 0 once the run is finished.

    It is a fork, so torch need not be imported again; what it does is what the command does.
    """
    child = os.fork()
    if child == 0:
        code = 9
        with contextlib.suppress(BaseException):
            code = 0 if pretrain(config)["finished"] else STOPPED
        os._exit(code)
    return child


def train_and_kill(tokens: Path, run: Path, arguments: tuple[str, ...], moment: tuple[str, int, float]) -> bool:
    """Trains in a process of its own and kills it at the moment; whether the process was still at work."""
    kind, step, pause = moment
    reached = at_step(step, pause) if kind == "step" else in_checkpoint(step)
    child = forked(pretrain_config(tokens, run, *arguments))
    deadline = time.monotonic() + 60
    while not reached(run) and time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0, "the run failed by itself"
            return False
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("moment", random_moments(seed=7, count=10), ids=lambda moment: f"{moment[0]} {moment[1]}")
def test_a_killed_run_resumes_to_the_same_bits(moment, whole, tokens, tmp_path):
    optimizer = ["muon", "adamw"][moment[1] % 2]
    killed = train_and_kill(tokens, tmp_path / optimizer, ARGUMENTS[optimizer], moment)
    assert killed and not (tmp_path / optimizer / MANIFEST).exists()
    newest = newest_checkpoint(tmp_path / optimizer)
    result = tiny_run(tokens, tmp_path / optimizer, *ARGUMENTS[optimizer])
    assert result["finished"] and result["resumed_at"] == newest  # it went on, it did not begin again
    assert same_bits(tmp_path / optimizer, whole[optimizer])


@pytest.mark.parametrize("kind", ["normuon", "lion", "adafactor", "sgd", "experts"])
@pytest.mark.parametrize("moment", [("step", 4, 0.01), ("step", 17, 0.0), ("checkpoint", 8, 0.0)])
def test_a_run_of_any_kind_killed_resumes_to_the_same_bits(kind, moment, whole, tokens, tmp_path):
    assert train_and_kill(tokens, tmp_path / "run", ARGUMENTS[kind], moment)
    newest = newest_checkpoint(tmp_path / "run")
    assert tiny_run(tokens, tmp_path / "run", *ARGUMENTS[kind])["resumed_at"] == newest
    assert same_bits(tmp_path / "run", whole[kind])


def test_a_run_killed_again_and_again_ends_in_the_same_bits(whole, tokens, tmp_path):
    run = tmp_path / "adamw"
    kills = 0
    for kind, step, pause in random_moments(seed=3, count=8):
        moment = (kind, min(STEPS - 2, max(step, steps_done(run))), pause)
        kills += train_and_kill(tokens, run, ARGUMENTS["adamw"], moment)
    assert kills >= 3
    newest = newest_checkpoint(run)
    assert tiny_run(tokens, run, *ARGUMENTS["adamw"])["resumed_at"] == newest > 0
    assert same_bits(run, whole["adamw"])


def start(
    tokens: Path, run: Path, *arguments: str, tiny: tuple[str, ...] = TINY_ARGUMENTS, threads: int = 1
) -> subprocess.Popen[str]:
    """The real command in the background."""
    command = [sys.executable, "-m", "seedbed", "pretrain", f"--data.tokens={tokens}", f"--out={run}"]
    # Threads that wait asleep: the tests beside this one need the processor.
    env = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return subprocess.Popen([*command, *tiny, *arguments], env=env, stderr=subprocess.PIPE, text=True)


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_the_command_asked_to_stop_goes_on_to_the_same_bits(whole, tokens, tmp_path):
    run = tmp_path / "muon"
    process = start(tokens, run, *ARGUMENTS["muon"])
    wait_until(lambda: steps_done(run) >= 7)
    process.terminate()
    assert process.wait(30) == 0, process.stderr.read()
    assert not (run / MANIFEST).exists()
    tiny_run(tokens, run, *ARGUMENTS["muon"])
    assert same_bits(run, whole["muon"])


# At the worst moment -------------------------------------------------------------------------------------------------


RARELY = CheckpointConfig(steps=100)


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory) -> Path:
    """A run of two steps of four, with a checkpoint of each."""
    run = tmp_path_factory.mktemp("two steps") / "run"
    trainer = tiny_trainer(run, checkpoint=RARELY)
    for _ in range(2):
        trainer.run_step()
        trainer.save()
    return run


def one_more(run: Path) -> Trainer:
    """Goes on by a step; what is left to do is save it, which removes the oldest checkpoint."""
    trainer = tiny_trainer(run, checkpoint=RARELY)
    assert trainer.resume() == 2
    trainer.run_step()
    return trainer


def every(stride: int) -> pytest.MarkDecorator:
    """Every call as a proof, each so many-th of them in the tests that take seconds."""
    return pytest.mark.parametrize("stride", [stride, pytest.param(1, marks=pytest.mark.proof)])


def last_bits(run: Path) -> tuple[bytes, list[torch.Tensor]]:
    """Of the metrics and weights, once the run has gone on to its end."""
    trainer = tiny_trainer(run, checkpoint=RARELY)
    assert trainer.resume() in (2, 3)
    for step in trainer.checkpoints.steps():
        open_folder(trainer.checkpoints.path(step), "checkpoint", verify="all")
    assert trainer.train()
    assert sorted(path.name for path in trainer.checkpoints.folder.iterdir())[-1] == "step_00000004"
    return (run / "metrics.jsonl").read_bytes(), [weight.detach() for weight in trainer.model.parameters()]


@every(4)
def test_killed_at_any_call_of_a_save_a_run_goes_on_to_the_same_bits(stride, two_steps, tmp_path):
    number, killed = 0, True
    shutil.copytree(two_steps, tmp_path / "whole")
    expected = last_bits(tmp_path / "whole")
    while killed:
        number += stride
        run = tmp_path / str(number)
        shutil.copytree(two_steps, run)
        trainer = one_more(run)
        killed = killed_at_call(number, trainer.save)
        lines, weights = last_bits(run)
        assert lines == expected[0] and all(map(torch.equal, weights, expected[1])), number
        assert not list((run / "checkpoints").glob(".*.partial-*")) or killed
    assert number > 15


@every(5)
def test_ctrl_c_twice_at_any_call_of_a_save_leaves_no_half_checkpoint(stride, two_steps, tmp_path):
    shutil.copytree(two_steps, tmp_path / "whole")
    expected = last_bits(tmp_path / "whole")

    def interrupt_twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        wait_until(lambda: interruption.requested)  # the main thread hears it, and this may be the writing one
        os.kill(os.getpid(), signal.SIGINT)

    number, done = 0, False
    while not done:
        number += stride
        run = tmp_path / str(number)
        shutil.copytree(two_steps, run)
        trainer = one_more(run)
        with contextlib.suppress(KeyboardInterrupt), Interruption() as interruption, at_call(number, interrupt_twice):
            trainer.save()
            done = True
        assert not list((run / "checkpoints").glob(".*")), number
        lines, weights = last_bits(run)
        assert lines == expected[0] and all(map(torch.equal, weights, expected[1])), number
    assert number > 15


@every(13)
def test_killed_at_any_call_of_its_end_a_run_is_incomplete_or_whole_and_ends_when_given_again(stride, tokens, tmp_path):
    arguments = ("--train.steps=1", "--train.validate_every=1")
    tiny_run(tokens, tmp_path / "whole", *arguments)
    number, killed = 0, True
    while killed:
        number += stride
        run = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", run)
        killed = killed_at_call(number, lambda: tiny_run(tokens, run, *arguments))  # noqa: B023 (done at once)
        if (run / MANIFEST).exists():
            open_folder(run, "run", verify="all")
        if (run / "model").exists():
            open_folder(run / "model", "model", verify="all")
        assert tiny_run(tokens, run, *arguments)["finished"]
        open_folder(run, "run", verify="all")
        assert same_bits(run, tmp_path / "whole")
        assert not [path.name for path in run.rglob(".*") if "partial" in path.name or "replaced" in path.name]
    assert number > 30


# Mixtures and curricula ----------------------------------------------------------------------------------------------


def mixed_config(tokens: Path, out: Path, place: Path, *arguments: str) -> PretrainConfig:
    """Two folders (here the same one twice), documents isolated; weights and lengths change on the way."""
    (place / "mix.yaml").write_text(
        "data:\n"
        f"  mixture: [{{tokens: {tokens}, weight: 3}}, {{tokens: {tokens}, weight: 1}}]\n"
        "  phases: [{from_step: 10, weights: [1, 1]}]\n"
        "  lengths: [{from_step: 0, length: 8}, {from_step: 9, length: 16}]\n"
        "  packing: isolate\n"
    )
    settings = (f"--config={place / 'mix.yaml'}", f"--out={out}", *TINY_ARGUMENTS, "--train.steps=14", *arguments)
    return from_arguments(PretrainConfig, settings)


GROWING = "--train.batches=[{from_step: 5, batch: 6}, {from_step: 11, batch: 7}]"


@pytest.mark.parametrize(
    ("stop", "given"), [(4, ()), (9, ()), (12, ()), (5, (GROWING,)), (9, (GROWING,)), (12, (GROWING,))]
)
def test_a_mixture_with_curricula_stopped_anywhere_goes_on_to_the_same_bits(stop, given, tokens, tmp_path, monkeypatch):
    """Also when batches grow, and when it goes on with threads that make batches ahead."""
    step = Trainer.run_step

    def stopped(trainer: Trainer) -> None:
        step(trainer)
        if trainer.progress.step == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert pretrain(mixed_config(tokens, whole, tmp_path, *given))["finished"]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run_step", stopped)
        assert not pretrain(mixed_config(tokens, broken, tmp_path, *given))["finished"]
    assert pretrain(mixed_config(tokens, broken, tmp_path, "--data.workers=2", *given))["resumed_at"] == stop
    assert same_bits(broken, whole)


def test_lengths_and_weights_of_data_change_at_their_steps_when_batches_grow(tokens, tmp_path, monkeypatch):
    seen: list[tuple[int, int]] = []
    changes: list[int] = []
    step = Trainer.step

    def look(trainer: Trainer) -> StepReport:
        shapes = [batch.tokens_BT.shape for _, batch in trainer.micro_batches(trainer.progress.step)]
        seen.append((sum(rows for rows, _ in shapes), shapes[0][1]))
        changes[:] = [phase.first for phase in trainer.source.source.phases]
        return step(trainer)

    monkeypatch.setattr(Trainer, "step", look)
    pretrain(mixed_config(tokens, tmp_path / "run", tmp_path, GROWING))
    # Rows of 8 tokens are halves of rows, until step 9.
    assert seen == [(8, 8)] * 5 + [(12, 8)] * 4 + [(6, 16)] * 2 + [(7, 16)] * 3
    assert changes == [0, 5 * 4 + 5 * 6]  # the weights, at step 10


def test_a_run_goes_on_with_no_other_mixture(tokens, tmp_path):
    pretrain(mixed_config(tokens, tmp_path / "run", tmp_path))
    other = f"--data.mixture=[{{tokens: {tokens}, weight: 3}}, {{tokens: {tokens}, weight: 2}}]"
    with pytest.raises(ConfigError, match=r"was begun with data\.mixture"):
        pretrain(mixed_config(tokens, tmp_path / "run", tmp_path, other))


# A clock that jumps --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [-1e6, 0.0, 1e6])
def test_a_clock_that_jumps_or_stands_still_moves_no_weight(jump, tokens, tmp_path, whole, monkeypatch):
    """Every clock there is, at every look, while a run is stopped and goes on."""
    now = 1e9

    def look() -> float:
        nonlocal now
        now += jump
        return now

    for clock in ("time", "monotonic", "perf_counter"):
        monkeypatch.setattr(time, clock, look)
    monkeypatch.setattr(time, "time_ns", lambda: int(look() * 1e9))
    run = tmp_path / "muon"
    config = pretrain_config(tokens, run, *ARGUMENTS["muon"])
    step = Trainer.run_step

    def stopped(trainer: Trainer) -> None:
        step(trainer)
        if trainer.progress.step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run_step", stopped)
        assert not pretrain(config)["finished"]
    assert pretrain(config)["resumed_at"] == 7
    assert same_bits(run, whole["muon"])
    assert (run / "training.log").read_text().count("pretrain: step 7 of 30") == 1
    assert [record["step"] for record in records(run, "timings.jsonl")] == list(range(1, STEPS + 1))


@pytest.mark.proof
@pytest.mark.parametrize("jump", [-1e6, 0.0, 1e6])
def test_minutes_measured_by_a_clock_that_jumps_are_still_a_step_count(jump, tokens, tmp_path, monkeypatch):
    now = 1e9

    def look() -> float:
        nonlocal now
        now += jump
        return now

    monkeypatch.setattr(time, "perf_counter", look)
    monkeypatch.setattr(Trainer, "train", lambda trainer: False)
    config = pretrain_config(tokens, tmp_path / "run", "--train.minutes=0.1")
    assert not pretrain(config)["finished"]
    steps = load_config(tmp_path / "run" / "config.yaml", PretrainConfig).train.steps
    assert steps >= 1 and (jump <= 0 or steps == 1)


def test_the_preset_on_two_threads_killed_goes_on_to_the_same_bits(tokens, tmp_path):
    """Where products are large enough to be shared among threads."""
    settings = ("--config=pretrain/quickstart", "--train.steps=6", "--train.validate_every=3", "--train.log_every=1")
    settings = (*settings, "--train.checkpoint.steps=1", "--train.batch=8", "--train.validation_rows=8")

    def begin(run: Path) -> subprocess.Popen[str]:
        return start(tokens, run, *settings, "--data.length=64", "--train.device=cpu", tiny=(), threads=2)

    runs = [tmp_path / "whole", tmp_path / "broken"]
    broken = begin(runs[1])
    wait_until(lambda: newest_checkpoint(runs[1]) > 0 or broken.poll() is not None, 240)
    broken.kill()
    assert broken.wait() == -signal.SIGKILL, broken.stderr.read()
    assert 0 < newest_checkpoint(runs[1]) < 6
    for run in runs:
        process = begin(run)
        assert process.wait(240) == 0, process.stderr.read()
    assert load_config(runs[1] / "config.yaml", PretrainConfig).model.width == 128
    assert same_bits(*runs)


# Asked to stop -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_stop_saves_ends_well_and_goes_on_to_the_same_bits(number, tokens, tmp_path, whole):
    run = tmp_path / "muon"
    child = forked(pretrain_config(tokens, run, *ARGUMENTS["muon"]))
    wait_until(lambda: steps_done(run) >= 7)
    os.kill(child, number)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == STOPPED
    saved = max(path.name for path in (run / "checkpoints").glob("step_*"))
    assert int(saved.removeprefix("step_")) == records(run)[-1]["step"] < STEPS  # nothing done is lost
    tiny_run(tokens, run, *ARGUMENTS["muon"])
    assert same_bits(run, whole["muon"])


def test_a_second_interrupt_stops_at_once():
    with pytest.raises(KeyboardInterrupt), Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        wait_until(lambda: interruption.requested)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sigterm_twice_still_waits_for_the_step():
    with Interruption() as interruption:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            wait_until(lambda: interruption.requested)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


# What a run goes on from ---------------------------------------------------------------------------------------------

SHORT = ("--train.steps=6", "--train.checkpoint.steps=2", "--train.checkpoint.keep=9", "--train.validate_every=3")


@pytest.fixture(scope="module")
def short(tokens, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("short") / "run"
    tiny_run(tokens, run, *SHORT)
    return run


@pytest.fixture
def copied(short, tmp_path) -> Path:
    shutil.copytree(short, tmp_path / "run")
    return tmp_path / "run"


def test_a_finished_run_given_again_gives_its_result_without_training(copied, short, tokens):
    result = tiny_run(tokens, copied, *SHORT)
    assert result["resumed_at"] == result["steps"] == 6 and result["finished"]
    assert same_bits(copied, short)
    assert open_folder(copied, "run", verify="all").hash == open_folder(short, "run").hash


def test_a_corrupt_newest_checkpoint_is_passed_over_with_a_warning(copied, short, tokens, caplog):
    state = copied / "checkpoints" / "step_00000006" / "state.json"
    state.write_text(state.read_text().replace("6", "7", 1))
    result = tiny_run(tokens, copied, *SHORT)
    assert result["resumed_at"] == 4
    assert "passing over a corrupt checkpoint" in caplog.text and "step_00000006" in caplog.text
    assert same_bits(copied, short)
    open_folder(copied, "run", verify="all")  # the file of tensors may order its metadata otherwise: no equal hash


def test_a_checkpoint_without_its_manifest_is_passed_over_with_a_warning(copied, short, tokens, caplog):
    """So looks one whose removal was cut short."""
    (copied / "checkpoints" / "step_00000006" / MANIFEST).unlink()
    assert tiny_run(tokens, copied, *SHORT)["resumed_at"] == 4
    assert "step_00000006" in caplog.text
    assert same_bits(copied, short)


def test_a_staging_folder_that_a_killed_process_left_is_ignored(copied, short, tokens):
    (copied / "checkpoints" / "step_00000006").rename(copied / "checkpoints" / ".step_00000006.partial-999999999")
    assert tiny_run(tokens, copied, *SHORT)["resumed_at"] == 4
    assert same_bits(copied, short)


def test_a_run_whose_checkpoints_are_all_corrupt_is_left_for_a_person_to_look_at(copied, tokens):
    before = (copied / "metrics.jsonl").read_bytes()
    for state in copied.glob("checkpoints/*/state.json"):
        state.unlink()
    with pytest.raises(CorruptionError, match="no checkpoint is whole"):
        tiny_run(tokens, copied, *SHORT)
    assert (copied / "metrics.jsonl").read_bytes() == before and list(copied.glob("checkpoints/step_*"))


def test_a_run_goes_back_to_the_checkpoint_that_is_named(copied, short, tokens):
    where = copied / "checkpoints" / "step_00000002"
    result = tiny_run(tokens, copied, *SHORT, f"--resume={where}")
    assert result["resumed_at"] == 2
    assert same_bits(copied, short)


@pytest.mark.parametrize("where", ["nowhere", "step_00000002", "checkpoints/step_00000003", "checkpoints/step_x"])
def test_a_path_that_is_no_checkpoint_of_the_run_is_refused(where, copied, tokens):
    with pytest.raises(DataError, match="no checkpoint of this run"):
        tiny_run(tokens, copied, *SHORT, f"--resume={copied / where}")


def test_a_corrupt_checkpoint_that_is_named_is_refused(copied, tokens):
    (copied / "checkpoints" / "step_00000004" / "state.json").write_text("{}")
    with pytest.raises(CorruptionError, match=r"step_00000004/state\.json"):
        tiny_run(tokens, copied, *SHORT, f"--resume={copied / 'checkpoints' / 'step_00000004'}")


def test_resume_never_refuses_a_folder_that_holds_a_run(copied, tokens):
    before = (copied / "metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="resume is never"):
        tiny_run(tokens, copied, *SHORT, "--resume=never")
    assert (copied / "metrics.jsonl").read_bytes() == before


def test_resume_never_begins_in_an_empty_folder(tokens, tmp_path):
    assert tiny_run(tokens, tmp_path / "run", "--train.steps=1", "--resume=never")["resumed_at"] == 0


def test_a_checkpoint_cannot_be_resumed_where_there_is_no_run(tokens, tmp_path):
    with pytest.raises(DataError, match="holds no run"):
        tiny_run(tokens, tmp_path / "run", *SHORT, f"--resume={tmp_path / 'x'}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.seed", "1"),
        ("model.width", "32"),
        ("optimizer.matrix_rate", "0.5"),
        ("data.length", "8"),
        ("train.steps", "5"),
        ("train.patience", "3"),
    ],
)
def test_other_settings_than_the_run_began_with_are_refused_with_the_key(key, value, copied, tokens):
    with pytest.raises(ConfigError, match=rf"was begun with {key} .*, now it is {value}"):
        tiny_run(tokens, copied, *SHORT, f"--{key}={value}")


def test_a_run_whose_settings_an_older_version_wrote_goes_on(tokens, tmp_path):
    """It knew no optimizers but two and no schedules but two, and some numbers could not be left out then."""
    new = ("groups", "layer_decay", "cautious_decay", "polynomial", "relative_step", "fall", "power", "begin")
    for name in ("muon", "adamw"):
        run = tmp_path / name
        tiny_run(tokens, run, *SHORT, f"--optimizer.name={name}")
        lines = [
            line for line in (run / "config.yaml").read_text().splitlines() if line.split(":")[0].strip() not in new
        ]
        lines = [line for line in lines if line.split(":")[0].strip() not in ("batches", "average", "after")]
        old = {"momentum": 0.95, "beta2": 0.95, "warmup": 0.02}
        lines = [next((f"  {k}: {v}" for k, v in old.items() if line == f"  {k}: null"), line) for line in lines]
        text = "\n".join(line for line in lines if line != "    decay: 0.99") + "\n"
        assert text.count("0.95") == 2 and "null" in text and "average" not in text
        (run / "config.yaml").write_text(text)
        assert tiny_run(tokens, run, *SHORT, f"--optimizer.name={name}")["finished"]


# Longer, or anew -----------------------------------------------------------------------------------------------------

CONSTANT = ("--schedule.warmup=0", "--schedule.decay=0", "--train.validate_every=3", "--train.checkpoint.steps=2")


def test_a_finished_run_given_more_steps_goes_on_as_if_it_had_been_given_them_at_once(tokens, tmp_path):
    tiny_run(tokens, tmp_path / "whole", *CONSTANT, "--train.steps=12")
    tiny_run(tokens, tmp_path / "longer", *CONSTANT, "--train.steps=6")
    result = tiny_run(tokens, tmp_path / "longer", *CONSTANT, "--train.steps=12", "--train.checkpoint.keep=3")
    assert result["resumed_at"] == 6 and result["steps"] == 12
    assert same_bits(tmp_path / "longer", tmp_path / "whole")
    open_folder(tmp_path / "longer", "run", verify="all")
    assert tiny_run(tokens, tmp_path / "longer", *CONSTANT, "--train.steps=12")["resumed_at"] == 12


def test_a_run_is_made_longer_before_its_rates_fall(tokens, tmp_path):
    """The stable part of warmup-stable-decay does not depend on the length, so nothing of it was in vain."""
    arguments = (
        "--schedule.warmup=0",
        "--schedule.decay=0.5",
        "--train.checkpoint.steps=4",
        "--train.checkpoint.keep=9",
    )
    arguments = (*arguments, "--train.validate_every=4")
    tiny_run(tokens, tmp_path / "whole", *arguments, "--train.steps=16")
    tiny_run(tokens, tmp_path / "longer", *arguments, "--train.steps=8")
    where = tmp_path / "longer" / "checkpoints" / "step_00000004"
    result = tiny_run(tokens, tmp_path / "longer", *arguments, "--train.steps=16", f"--resume={where}")
    assert result["resumed_at"] == 4
    assert same_bits(tmp_path / "longer", tmp_path / "whole")


@pytest.mark.parametrize("schedule", ["warmup_stable_decay", "cosine"])
def test_a_longer_run_follows_the_schedule_of_its_new_length_and_says_how_rates_jump(
    schedule, tokens, tmp_path, caplog
):
    arguments = (f"--schedule.name={schedule}", "--schedule.warmup=0", "--schedule.final=0")
    tiny_run(tokens, tmp_path / "run", *arguments, "--train.steps=6")
    tiny_run(tokens, tmp_path / "run", *arguments, "--train.steps=12")
    config = ScheduleConfig(name=schedule, warmup=0, final=0)
    rates = [record["rate_multiple"] for record in records(tmp_path / "run") if "rate_multiple" in record]
    assert rates == [rate_multiple(config, step, 6 if step < 6 else 12) for step in range(12)]
    assert f"from 6 to 12 steps; at step 6 its rates go from 0 to {rates[6]:.3g} of their peak" in caplog.text


def test_a_run_counted_from_epochs_or_minutes_can_be_made_longer_by_either(tokens, tmp_path, monkeypatch):
    monkeypatch.setattr("seedbed.training.stage.measure", lambda trainer, seconds, phases: Costs(10.0, 0.0, 0.0))
    run = tmp_path / "run"
    first = tiny_run(tokens, run, "--train.minutes=1")
    second = tiny_run(tokens, run, "--train.minutes=2")
    assert second["resumed_at"] == first["steps"] < second["steps"]
    assert tiny_run(tokens, run, "--train.minutes=2")["resumed_at"] == second["steps"]
    third = tiny_run(tokens, run, "--train.steps=20")
    assert (third["resumed_at"], third["steps"]) == (second["steps"], 20)
    with pytest.raises(ConfigError, match=r"train\.steps 20, now it is [1-9]\b"):
        tiny_run(tokens, run, "--train.minutes=1.5")


def test_more_minutes_of_a_slower_moment_make_a_run_no_shorter(tokens, tmp_path, monkeypatch):
    run = tmp_path / "run"
    monkeypatch.setattr("seedbed.training.stage.measure", lambda trainer, seconds, phases: Costs(10.0, 0.0, 0.0))
    first = tiny_run(tokens, run, "--train.minutes=1")
    monkeypatch.setattr("seedbed.training.stage.measure", lambda trainer, seconds, phases: Costs(40.0, 0.0, 0.0))
    again = tiny_run(tokens, run, "--train.minutes=2")
    assert again["finished"] and again["steps"] == again["resumed_at"] == first["steps"]


def test_a_run_is_not_made_longer_when_another_setting_differs_too(copied, tokens):
    before = (copied / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match=r"was begun with train\.seed 0, now it is 1"):
        tiny_run(tokens, copied, *SHORT, "--train.steps=12", "--train.seed=1")
    assert (copied / "config.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("--resume=nowhere", "no checkpoint of this run"),
        ("--resume={run}/checkpoints/step_00000004", "file is cut off"),
        (f"--samples.prompts=[{'far too long ' * 9}]", "context is 32"),
        ("--train.tensor_parallel=2", "there is one process"),
    ],
)
def test_a_longer_run_that_is_refused_leaves_the_finished_one_as_it_was(given, problem, copied, tokens):
    (copied / "checkpoints" / "step_00000004" / "state.json").write_text("{}")
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file() and path.suffix != ".log"}
    with pytest.raises(SeedbedError, match=problem):
        tiny_run(tokens, copied, *SHORT, "--train.steps=12", "--samples.every=50", given.format(run=copied))
    assert {path: path.read_bytes() for path in before} == before


def test_a_run_that_died_before_its_first_checkpoint_begins_anew_with_the_settings_given(
    tokens, tmp_path, caplog, whole
):
    run, step = tmp_path / "muon", Trainer.step

    def die_at_3(trainer: Trainer) -> StepReport:
        if trainer.progress.step == 3:
            raise MemoryError
        return step(trainer)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(Trainer, "step", die_at_3)
        tiny_run(tokens, run, "--train.steps=9", "--train.batch=8", "--train.checkpoint.steps=9")
    assert steps_done(run) == 3
    result = tiny_run(tokens, run, *ARGUMENTS["muon"])
    assert result["finished"] and result["resumed_at"] == 0
    said = [line for line in caplog.messages if "begins anew" in line]
    assert said == [f"{run} has no complete checkpoint: it begins anew, with the settings given now"]
    assert same_bits(run, whole["muon"])


def test_a_finished_run_that_lost_its_checkpoints_does_not_begin_anew_with_other_settings(copied, tokens):
    shutil.rmtree(copied / "checkpoints")
    with pytest.raises(ConfigError, match=r"was begun with train\.seed 0, now it is 1"):
        tiny_run(tokens, copied, *SHORT, "--train.seed=1")


def test_a_run_that_begins_anew_needs_a_budget_as_any_other(tokens, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    save_config(run / "config.yaml", pretrain_config(tokens, run, "--train.steps=5"))
    for arguments in (("--train.seed=1",), ("--train.seed=1", "--train.minutes=1", "--train.steps=2")):
        with pytest.raises(ConfigError, match="budget"):
            tiny_run(tokens, run, *arguments)


def test_an_incomplete_checkpoint_at_the_first_step_is_not_in_the_way_of_a_new_beginning(tokens, tmp_path):
    """Its removal had been cut short; what stands in its place must be written all the same."""
    arguments = ("--train.steps=2", "--train.checkpoint.on_improvement=true", "--train.checkpoint.keep=9")
    tiny_run(tokens, tmp_path / "run", *arguments)
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        (path / MANIFEST).unlink()
    tiny_run(tokens, tmp_path / "run", *arguments)
    assert newest_checkpoint(tmp_path / "run") == 2
    assert (tmp_path / "run" / "checkpoints" / "step_00000000" / MANIFEST).is_file()


def test_leaving_out_a_setting_that_the_run_began_with_is_refused(tokens, tmp_path):
    tiny_run(tokens, tmp_path / "run", "--train.steps=1", "--train.patience=3")
    with pytest.raises(ConfigError, match=r"train\.patience 3, now it is None"):
        tiny_run(tokens, tmp_path / "run", "--train.steps=1")


def test_a_run_may_go_on_with_other_checkpoints_and_logs(copied, short, tokens):
    for step in (4, 6):
        shutil.rmtree(copied / "checkpoints" / f"step_{step:08d}")
    tiny_run(tokens, copied, *SHORT, "--train.checkpoint.steps=1", "--train.log_every=3")
    assert {path.name for path in (copied / "checkpoints").iterdir()} == {f"step_{n:08d}" for n in (2, 3, 4, 5, 6)}
    assert [record["step"] for record in records(copied) if "loss" in record] == [1, 2, 3, 6]
    assert weights(copied) == weights(short)


def test_a_run_may_go_on_with_other_micro_batches_and_validations(copied, short, tokens):
    shutil.rmtree(copied / "checkpoints" / "step_00000006")
    others = ("--train.micro_batch=1", "--train.validate_every=1", "--train.validation_rows=3")
    assert tiny_run(tokens, copied, *SHORT, *others)["resumed_at"] == 4
    assert [record["step"] for record in records(copied) if "val_loss" in record] == [0, 3, 5, 6]
    model, other = (load_model(run)[0].state_dict() for run in (copied, short))
    assert all(torch.allclose(model[name], weight, atol=1e-4) for name, weight in other.items())
    assert tiny_run(tokens, copied, *SHORT)["resumed_at"] == 6  # what was left out again is as it was


@pytest.mark.parametrize("reads", ["--train.select=best", "--train.patience=9"])
@pytest.mark.parametrize("key", ["validate_every", "validation_rows"])
def test_validations_that_a_run_is_selected_or_ended_by_do_not_change(reads, key, tokens, tmp_path):
    tiny_run(tokens, tmp_path / "run", *SHORT, reads)
    with pytest.raises(ConfigError, match=rf"was begun with train\.{key} \d, now it is 5"):
        tiny_run(tokens, tmp_path / "run", *SHORT, reads, f"--train.{key}=5")


def test_other_data_of_the_same_name_is_refused(copied, tokens):
    shutil.copytree(tokens.parent, copied.parent / "mine")
    mine = copied.parent / "mine" / "tokens"
    config = copied / "config.yaml"
    config.write_text(config.read_text().replace(str(tokens), str(mine)))
    (copied / MANIFEST).unlink()
    assert tiny_run(mine, copied, *SHORT)["resumed_at"] == 6  # a copy is the same data
    shutil.rmtree(mine)
    other = copied.parent / "other"
    prepare(PrepareConfig(source=str(tokens.parent / "source.jsonl"), out=other, seed=5, validation_fraction=0.2))
    tokenize(TokenizeConfig(corpus=other, tokenizer=tokens.parent / "tokenizer", out=mine))
    with pytest.raises(DataError, match="trained on other data"):
        tiny_run(mine, copied, *SHORT)


def test_two_processes_cannot_train_in_one_folder(tokens, tmp_path):
    with lock(tmp_path / "run"), pytest.raises(StorageError, match="in use by process"):
        tiny_run(tokens, tmp_path / "run", *SHORT)


def test_a_folder_of_something_else_is_not_trained_into(tokens):
    corpus = tokens.parent / "corpus"
    with pytest.raises(ConfigError, match="not empty and holds no run"):
        tiny_run(tokens, corpus, *SHORT)
    open_folder(corpus, "corpus", verify="all")
