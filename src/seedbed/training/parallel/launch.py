"""Starting processes that train together, or joining those that torchrun started; ending all when one ends.

torchrun (or any launcher that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT) starts the command once a
device. `--train.devices N` does the same by itself on one machine: the first process then only watches over its
children.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, Concatenate, TypeVar

import torch
import torch.distributed as dist

from seedbed import errors
from seedbed.errors import Alarm, ConfigError, CutOffError, SeedbedError, TrainingError
from seedbed.runs import read_json
from seedbed.training.config import StageConfig
from seedbed.training.parallel.world import PeerError, World, local_rank

C = TypeVar("C", bound=StageConfig)

GRACE = 20.0
"""Seconds in which the others may end by themselves, once one has failed."""

INTERRUPTED = 130
"""Exit code of a process that Ctrl-C ended."""

FAILURES = "seedbed failures"
"""In the processes' common store: how many have ended with an error of their own."""

GOES_ON = "The last checkpoint is whole: the same command goes on from it."

TRAINING = "seedbed.training.pretrain"
"""Brings all that a stage needs: several times as slow to import as to fork a process that has it."""


def in_parallel(stage: Callable[Concatenate[C, ...], dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """A training stage that runs in every process of a launcher, or in as many as `train.devices` asks for.

    An error in one of them ends all, and is told once. Observers of this process, or what else it gives to the stage,
    cannot be those of the ones it would start: ConfigError.
    """

    @functools.wraps(stage)
    def run(config: C, *given: Any, **named: Any) -> dict[str, Any]:
        if "RANK" in os.environ:
            _check_devices(config)
            with _joined():
                return stage(config, *given, **named)
        if config.train.devices == 1:
            return stage(config, *given, **named)
        if any(given) or any(named.values()):
            raise ConfigError(
                f"train.devices is {config.train.devices}, but this run is watched from the process that starts it, or "
                "rewarded",
                "Take train.devices 1, or start it by torchrun.",
            )
        return launch(run, config)

    return run


def _check_devices(config: StageConfig) -> None:
    started = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    if config.train.devices not in (1, started):
        raise ConfigError(
            f"train.devices is {config.train.devices}, but the launcher started {started} processes on this machine",
            "Leave --train.devices out under torchrun.",
        )


# In each process -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _joined() -> Iterator[None]:
    """A member of the process group while the block lasts. The first error of all is told, the others end silently."""
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank())
    # Numbers and messages always go by gloo, tensors of the model by what their device has.
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    if not World.here().leads:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (as long as the process): one result is enough
    store = dist.distributed_c10d._get_default_store()
    try:
        yield
    except BaseException as error:
        told = error
        if _lost_touch(error):
            if _failed(store):
                raise SystemExit(2) from None
            told = CutOffError("another process of this run ended without a word", GOES_ON)
        first = True
        with contextlib.suppress(Exception):  # the store may be gone with its process
            first = store.add(FAILURES, 1) == 1
        if isinstance(told, SeedbedError) and not first:
            raise SystemExit(2) from None
        raise told from None
    else:
        World.here().wait()  # the store may live in the leader
    finally:
        with contextlib.suppress(Exception):
            dist.destroy_process_group()


def _lost_touch(error: BaseException) -> bool:
    """Whether an error says no more than that another process is gone."""
    if isinstance(error, PeerError | dist.DistError):
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in words for word in ("gloo", "closed by peer", "nccl"))


def _failed(store: dist.Store) -> bool:
    """Whether another process has said why it ended; it is given a second to do so."""
    for _ in range(20):
        with contextlib.suppress(Exception):
            if store.check([FAILURES]):
                return True
        time.sleep(0.05)
    return False


# The parent of all ---------------------------------------------------------------------------------------------------


def launch(stage: Callable[[C], dict[str, Any]], config: C) -> dict[str, Any]:
    """Runs a stage in `config.train.devices` processes of this machine, and gives the result of the leading one.

    Each has one GPU, or its share of the CPU's threads. SIGTERM and Ctrl-C are passed on: the run then saves and ends.
    When a process fails the others are ended, and its error is raised here; TrainingError when it was killed.
    """
    count = config.train.devices
    if torch.cuda.is_available() and config.train.device in ("auto", "cuda") and count > torch.cuda.device_count():
        raise ConfigError(f"train.devices is {count}, but this machine has {torch.cuda.device_count()} GPUs")
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    threads = max(1, torch.get_num_threads() // count)
    context = processes()
    failures = context.SimpleQueue()
    children: list[BaseProcess] = []
    try:
        with _passing_on(children) as passed_on:
            for rank in range(count):
                place: dict[str, Any] = {
                    "RANK": rank,
                    "LOCAL_RANK": rank,
                    "WORLD_SIZE": count,
                    "LOCAL_WORLD_SIZE": count,
                }
                place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port, "OMP_NUM_THREADS": threads}
                # As under torchrun: the store is the parent's, and outlives every child.
                place |= {"TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0}
                children.append(context.Process(target=_child, args=(stage, config, place, failures)))
                children[-1].start()
            failed = _watch(children)
    finally:
        for child in children:
            if child.is_alive():
                child.kill()
            child.join()
    if failed is None:
        return read_json(config.out / "result.json")
    number, code = failed
    interrupts = passed_on.count(signal.SIGINT)
    if code == INTERRUPTED or interrupts > 1 or (interrupts and failures.empty()):
        raise KeyboardInterrupt  # of those that it ends, some meet it, and some only that the others are gone
    if code < 0:
        name = signal.Signals(-code).name
        raise CutOffError(f"process {number} of {count} was ended by {name}; so the others were ended", GOES_ON)
    if not failures.empty():
        kind, *told = failures.get()
        raise getattr(errors, kind)(*told)
    raise TrainingError(f"process {number} of {count} ended with code {code}; so the others were ended")


def processes() -> ForkServerContext | SpawnContext:
    """How processes begin: as forks of one that has imported torch once for all of them and touched no GPU and begun no
    thread; each anew where forks are not safe."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([TRAINING])
    return context


def _watch(children: list[BaseProcess]) -> tuple[int, int] | None:
    """Waits for all; the number and exit code of the first that failed, after which the others have GRACE seconds."""
    failed, deadline = None, float("inf")
    while running := [child for child in children if child.exitcode is None]:
        wait([child.sentinel for child in running], timeout=1.0)
        for number, child in enumerate(children):
            if failed is None and child.exitcode:
                failed, deadline = (number, child.exitcode), time.monotonic() + GRACE
        if time.monotonic() > deadline:
            break
    return failed


@contextlib.contextmanager
def _passing_on(children: list[BaseProcess]) -> Iterator[list[int]]:
    """SIGTERM and Ctrl-C go to the children, who do not hear the terminal's; gives those that came."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def pass_on(number: int, frame: FrameType | None) -> None:
        came.append(number)
        for child in children:
            if child.pid is not None and child.exitcode is None:
                os.kill(child.pid, number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _child(
    stage: Callable[[C], dict[str, Any]], config: C, place: dict[str, Any], failures: multiprocessing.SimpleQueue[Any]
) -> None:
    """The life of a process that `launch` started."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # Ctrl-C comes through the parent, once
    os.environ |= {name: str(value) for name, value in place.items()}
    torch.set_num_threads(int(place["OMP_NUM_THREADS"]))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        stage(config)
    except SeedbedError as error:
        alarm = (error.exit_code,) if isinstance(error, Alarm) else ()
        failures.put((type(error).__name__, error.problem, error.fix, *alarm))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # before there was anything to save
        sys.exit(INTERRUPTED)


def _end_with_parent() -> None:
    """A process whose parent was killed saves and ends, as when it is asked to."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
