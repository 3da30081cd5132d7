"""Several processes do together what one does alone."""

from __future__ import annotations

import functools
import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from seedbed.training.parallel.launch import processes
from seedbed.training.parallel.parallel import Rows, share
from tests.training.parallel import crew


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> Callable[[int], list[dict[str, str | None]]]:
    """What each of so many processes says of each promise; they are started once."""
    return functools.cache(lambda count: run(count, tmp_path_factory.mktemp("crew")))


def run(count: int, place: Path) -> list[dict[str, str | None]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = processes()
    crowd = [context.Process(target=crew.keep, args=(rank, count, port, place)) for rank in range(count)]
    for process in crowd:
        process.start()
    for process in crowd:
        process.join(timeout=200)
        process.kill()
    lines = [(place / f"outcome.{rank}").read_text().splitlines() for rank in range(count)]
    return [dict(map(json.loads, each)) for each in lines]


@pytest.mark.parametrize(
    ("count", "promise"), [(count, promise) for count, promises in crew.PROMISES.items() for promise in promises]
)
def test_of_several_processes(count, promise, outcomes):
    for outcome in outcomes(count):
        assert promise in outcome, "it did not come to this promise, or never ended"
        assert outcome[promise] is None, outcome[promise]


@pytest.mark.parametrize(("count", "most", "replicas"), [(16, 16, 1), (16, 5, 2), (7, 2, 3), (2, 1, 4), (5, 1, 2)])
def test_replicas_take_every_row_once_in_order_and_make_as_many_passes(count, most, replicas):
    shares = [list(share(100, count, most, replica, replicas)) for replica in range(replicas)]
    taken = [rows.first + place for part in shares for rows in part if not rows.spare for place in range(rows.count)]
    assert taken == list(range(100, 100 + count))
    assert len({len(part) for part in shares}) == 1
    assert all(1 <= rows.count <= most for part in shares for rows in part)


def test_one_process_takes_rows_as_it_always_did():
    assert list(share(32, 16, 5, 0, 1)) == [Rows(32, 5), Rows(37, 5), Rows(42, 5), Rows(47, 1)]
