"""What a run uses."""

from __future__ import annotations

import json
import time

import pytest
import torch

from seedbed.training.meter import Meter
from tests.tiny import random_rows, tiny_run

CPU = torch.device("cpu")


class Clock:
    """A clock that is set by hand."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def usage(monkeypatch) -> dict[str, float]:
    used = {"cpu_seconds": 5.0, "disk_read": 0.0, "disk_written": 0.0}
    monkeypatch.setattr("seedbed.training.meter.process_usage", lambda: dict(used))
    return used


def test_rates_are_those_since_the_reading_before_and_totals_those_of_all(clock, usage, monkeypatch):
    watts = {"gpu_watts": 50.0}
    monkeypatch.setattr("seedbed.training.meter.gpu_state", lambda device: watts)
    meter = Meter(CPU)
    meter.energy.read = lambda: 10 * (clock.now - 100)  # 10 W
    meter.began = meter.last = meter._now()

    class Slow:
        def batch(self, first, count):
            clock.now += 1.0
            return random_rows(count).batch(0, count)

    assert len(meter.batch(Slow(), 0, 3).tokens_BT) == 3
    clock.now += 1.0
    usage |= {"cpu_seconds": 8.0, "disk_written": 4e6}
    found = meter.read()
    assert found.pop("peak_rss_mb") > 10
    assert found == {
        **{"samples_per_s": 1.5, "data_wait_share": 0.5, "cpu_percent": 150.0, "cpu_watts": 10.0, **watts},
        **{"disk_read_per_s": 0.0, "disk_written_per_s": 2e6},
    }
    clock.now += 2.0
    assert meter.read()["data_wait_share"] == 0
    assert meter.totals() == {
        **{"data_wait_seconds": 1.0, "cpu_seconds": 3.0, "disk_read_mb": 0.0, "disk_written_mb": 4.0},
        **{"cpu_joules": 40.0, "gpu_joules": 200.0},
    }


def test_energy_that_the_machine_does_not_tell_is_unknown(usage):
    meter = Meter(CPU)
    meter.energy.read = lambda: None
    meter.began = meter.last = meter._now()
    assert "cpu_watts" not in meter.read()
    assert meter.totals()["cpu_joules"] == "unknown" and "gpu_joules" not in meter.totals()


def test_the_result_of_a_run_says_what_it_used(tokens, tmp_path):
    tiny_run(tokens, tmp_path / "run", "--train.steps=3")
    used = json.loads((tmp_path / "run" / "result.json").read_bytes())["used"]
    assert used["cpu_seconds"] > 0 and 0 <= used["data_wait_seconds"] < 60
    assert used["cpu_joules"] == "unknown" or used["cpu_joules"] >= 0
