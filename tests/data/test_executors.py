"""Work runs in order, in bounded memory, here or elsewhere, and a worker that dies is told."""

from __future__ import annotations

import logging
import os
import signal

import pytest

from seedbed.data.executors import AHEAD, EXECUTORS, keeping_sigterm, run_local
from seedbed.errors import DataError, StorageError


def square(number: int) -> tuple[int, int]:
    if number == 13:
        raise DataError("thirteen")
    if number == 99:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number, os.getpid()


def taken(numbers: list[int], log: list[int]):
    for number in numbers:
        log.append(number)
        yield number


@pytest.fixture(scope="module", params=EXECUTORS)
def executor(request):
    """Ray is started once for all; that it is started where it is not, a corpus prepared on it shows."""
    if request.param == "ray":
        ray = pytest.importorskip("ray")
        with keeping_sigterm():
            ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
        yield request.param
        ray.shutdown()
    else:
        yield request.param


def test_results_come_in_order_and_few_items_are_taken_ahead(executor):
    log: list[int] = []
    results = EXECUTORS[executor](square, taken(list(range(12)), log), 2)
    first, process = next(results)
    assert first == 0 and process != os.getpid() and len(log) <= AHEAD * 2
    assert [result for result, _ in results] == [number * number for number in range(1, 12)]


def test_an_error_in_a_worker_is_passed_on(executor):
    with pytest.raises(DataError, match="thirteen"):
        list(EXECUTORS[executor](square, [1, 2, 13, 4], 2))


def test_one_worker_or_one_item_needs_no_process():
    assert {process for _, process in run_local(square, range(5), 1)} == {os.getpid()}
    assert next(run_local(square, [3], 8)) == (9, os.getpid())
    assert list(run_local(square, [], 8)) == []


def test_a_worker_that_is_killed_is_told():
    with pytest.raises(StorageError, match="a worker was killed"):
        list(run_local(square, [1, 2, 99, 4], 2))
