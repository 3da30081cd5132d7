"""Where work runs: here, in processes of this machine, or on a Ray cluster. Each yields results in the order of the
items, takes only a few items ahead, so that memory stays bounded, and passes on the first error."""

from __future__ import annotations

import contextlib
import itertools
import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from seedbed.errors import StorageError
from seedbed.extras import missing

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 3
"""Items under way for each worker: what is done early waits for its turn."""


def run_local(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Runs `function` on every item, `workers` at once, in processes; in this one when there is one worker or item.

    `function` must be one that can be pickled. StorageError when a worker is killed, as for want of memory.
    """
    items = iter(items)
    first = list(itertools.islice(items, 2))
    if workers == 1 or len(first) < 2:
        yield from map(function, itertools.chain(first, items))
        return
    # Spawned, not forked: a fork beside threads (torch, pyarrow) may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin)
    pending: deque[Future[R]] = deque()
    try:
        for item in itertools.chain(first, items):
            pending.append(pool.submit(function, item))
            if len(pending) >= AHEAD * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except KeyboardInterrupt:
        for process in list(pool._processes.values()):  # a second Ctrl-C must find nothing to wait for
            process.terminate()
        raise
    except BrokenProcessPool as error:
        problem = "a worker was killed, perhaps because memory ran out"
        raise StorageError(problem, "Run the same command again with fewer --workers.") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    """In a worker: Ctrl-C is the parent's to handle, and a parent that is killed takes its workers along."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the other workers are the parallelism
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def keeping_sigterm() -> Iterator[None]:
    """What SIGTERM does in this process stays as it was: Ray would take it over, and a later training not save."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def run_ray(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """The same on a Ray cluster: the one that RAY_ADDRESS names, else one on this machine. The folders must be on a
    disk that all its nodes share."""
    try:
        import ray
    except ImportError as error:
        raise missing("executor ray", "ray", "ray") from error
    began = not ray.is_initialized()
    if began:
        address = os.environ.get("RAY_ADDRESS")
        with keeping_sigterm():
            ray.init(
                address,
                num_cpus=None if address else workers,
                include_dashboard=False,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
    remote: Any = ray.remote(_call)
    pending: deque[ray.ObjectRef] = deque()
    try:
        for item in items:
            pending.append(remote.remote(function, item))
            if len(pending) >= AHEAD * workers:
                yield ray.get(pending.popleft())
        while pending:
            yield ray.get(pending.popleft())
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    finally:
        for reference in pending:
            ray.cancel(reference)
        if began:
            ray.shutdown()


def _call(function: Callable[[T], R], item: T) -> R:
    return function(item)  # Ray takes plain functions only, no partial ones


EXECUTORS = {"local": run_local, "ray": run_ray}
"""By the names that `PrepareConfig.executor` takes."""
