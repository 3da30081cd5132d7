"""Two processes do together what one does alone."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from seedbed.training.parallel.launch import processes
from seedbed.training.parallel.parallel import Rows, share
from tests.training.parallel import crew


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> list[dict[str, str | None]]:
    """What each of two processes says of each promise."""
    place: Path = tmp_path_factory.mktemp("crew")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = processes()
    both = [context.Process(target=crew.keep, args=(rank, port, place)) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(timeout=200)
        process.kill()
    lines = [(place / f"outcome.{rank}").read_text().splitlines() for rank in range(2)]
    return [dict(map(json.loads, each)) for each in lines]


@pytest.mark.parametrize("promise", crew.PROMISES)
def test_of_two_processes(promise, outcomes):
    for outcome in outcomes:
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
