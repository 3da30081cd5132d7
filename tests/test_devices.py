"""The one reader of the hardware."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from seedbed import devices
from seedbed.devices import choose_device, gemm_peak, peak_memory_mb, set_determinism, synchronise
from seedbed.errors import ConfigError

ORDER = ("cuda", "mps", "xpu")


@pytest.fixture
def offer(monkeypatch):
    """Makes torch see exactly these devices beside the CPU."""

    def only(*present: str) -> None:
        for module, name in ((torch.cuda, "cuda"), (torch.backends.mps, "mps"), (torch.xpu, "xpu")):
            monkeypatch.setattr(module, "is_available", lambda name=name: name in present)

    return only


@pytest.mark.parametrize("count", range(4))
def test_auto_takes_the_first_of_cuda_mps_xpu_and_cpu(count, offer):
    for present in itertools.combinations(ORDER, count):
        offer(*present)
        assert choose_device("auto") == torch.device([*present, "cpu"][0])


@pytest.mark.parametrize("name", ORDER)
def test_a_device_that_is_there_can_be_asked_for_by_name(name, offer):
    offer(*ORDER)
    assert choose_device(name).type == name and choose_device("cpu").type == "cpu"


@pytest.mark.parametrize("name", ORDER)
def test_a_device_that_is_not_there_is_a_clear_error(name, offer):
    present = [other for other in ORDER if other != name]
    offer(*present)
    with pytest.raises(ConfigError) as caught:
        choose_device(name)
    there = ", ".join([*present, "cpu"])
    assert caught.value.problem == f"device {name} was asked for, but this machine offers {there}"


def test_determinism_is_switched_on_and_off(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    set_determinism(True)
    try:
        import os

        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark
        assert not torch.utils.deterministic.fill_uninitialized_memory  # costs time and mends nothing here
    finally:
        set_determinism(False)
    assert not torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.benchmark


def test_the_peak_is_a_rate_that_a_machine_can_have():
    gemm_peak.cache_clear()
    peak = gemm_peak(torch.device("cpu"), 256)
    assert 1e8 < peak < 1e15
    assert gemm_peak(torch.device("cpu"), 256) == peak  # measured once
    gemm_peak.cache_clear()


def test_the_peak_counts_two_operations_for_each_product(monkeypatch):
    """A clock that ticks one second a look makes every product take a second."""
    ticks = itertools.count()
    monkeypatch.setattr("seedbed.devices.time.perf_counter", lambda: float(next(ticks)))
    gemm_peak.cache_clear()
    assert gemm_peak(torch.device("cpu"), 64) == 2 * 64**3
    gemm_peak.cache_clear()


def test_peak_memory_grows_with_what_is_held_and_never_shrinks():
    before = peak_memory_mb()
    block = bytearray(int(before * 1e6) // 2 + 200_000_000)
    grown = peak_memory_mb()
    del block
    assert 10 < before < grown <= peak_memory_mb()


def test_nothing_waits_for_a_cpu():
    synchronise(torch.device("cpu"))


# In use --------------------------------------------------------------------------------------------------------------


def counter(folder: Path, name: str, microjoules: int) -> None:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{microjoules}\n")
    (folder / name / "max_energy_range_uj").write_text("1000000000\n")


def test_energy_is_the_sum_of_the_processors_and_their_counters_may_go_round(tmp_path):
    counter(tmp_path, "intel-rapl:0", 999_000_000)
    counter(tmp_path, "intel-rapl:1", 5_000_000)
    counter(tmp_path, "intel-rapl:0:0", 77)  # a part of the first
    energy = devices.EnergyCounter(tmp_path)
    assert energy.read() == 0
    counter(tmp_path, "intel-rapl:0", 2_000_000)
    counter(tmp_path, "intel-rapl:1", 6_500_000)
    counter(tmp_path, "intel-rapl:0:0", 10**8)
    assert energy.read() == pytest.approx(3 + 1.5)
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("")
    assert energy.read() is None


def test_a_machine_without_counters_tells_no_energy(tmp_path):
    assert devices.EnergyCounter(tmp_path).read() is None


def test_what_a_process_uses_only_grows():
    before = devices.process_usage()
    sum(number * number for number in range(10**5))
    after = devices.process_usage()
    assert before.keys() == after.keys() >= {"cpu_seconds"}
    assert all(after[name] >= value >= 0 for name, value in before.items())


def test_a_processor_has_neither_memory_of_its_own_nor_the_state_of_a_gpu():
    assert devices.device_memory_mb(torch.device("cpu")) == devices.gpu_state(torch.device("cpu")) == {}


def test_a_gpu_tells_what_its_driver_knows(monkeypatch):
    def no_sensor(device: torch.device) -> int:
        raise RuntimeError("not supported")

    monkeypatch.setattr(torch.cuda, "power_draw", lambda device: 70_500)
    monkeypatch.setattr(torch.cuda, "temperature", lambda device: 61)
    monkeypatch.setattr(torch.cuda, "utilization", no_sensor)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 10**9)
    device = torch.device("cuda", 0)
    assert devices.gpu_state(device) == {"gpu_watts": 70.5, "gpu_celsius": 61.0}
    assert devices.device_memory_mb(device) == {"peak_device_mb": 3000.0}
