"""Minutes become steps: measured when the machine is warm, and so many that the promise is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from seedbed.training import budget
from seedbed.training.budget import Costs, fit, measure
from seedbed.training.config import CheckpointConfig, TrainConfig
from seedbed.training.run_state import RunState

STEP, VALIDATION, CHECKPOINT = 0.08, 0.4, 0.15


class Machine:
    """A clock, and a trainer whose work moves it: for a second faster than later, as a processor that was idle is."""

    def __init__(self, monkeypatch, *, step: float = STEP, validation: bool = True):
        self.now, self.step, self.steps = 100.0, step, 0
        monkeypatch.setattr(budget.time, "perf_counter", lambda: self.now)
        self.validation = object() if validation else None
        self.progress = RunState()

    def work(self, seconds: float) -> None:
        self.now += seconds

    def run_step(self) -> None:
        self.steps += 1
        self.progress = RunState(step=self.steps)
        self.work(self.step * (0.8 if self.now < 101 else 1.01 if self.steps % 2 else 0.99))

    def validate(self) -> None:
        self.work(VALIDATION)

    def save(self) -> None:
        self.work(CHECKPOINT)


@pytest.mark.parametrize("minutes", [0.4, 1.6, 6, 60])
@pytest.mark.parametrize("step", [0.004, 0.08, 0.5])
def test_the_minutes_promised_are_the_minutes_taken(minutes, step, monkeypatch):
    machine = Machine(monkeypatch, step=step)
    seconds = 60 * minutes
    train = fit(TrainConfig(minutes=minutes), measure(machine, 0.1 * seconds), seconds - (machine.now - 100))
    for number in range(train.steps):
        machine.run_step()
        if number % train.validate_every == 0:
            machine.validate()
            machine.work(CHECKPOINT)
    machine.validate()
    machine.work(2 * CHECKPOINT)
    assert 0.93 <= (machine.now - 100) / seconds <= 1.05


def test_it_is_measured_for_seconds_and_on_many_steps(monkeypatch):
    machine = Machine(monkeypatch, step=0.01)
    costs = measure(machine, 60)
    assert costs.step == pytest.approx(0.01, rel=0.01)
    assert (costs.validation, costs.checkpoint) == pytest.approx((VALIDATION, CHECKPOINT))
    assert machine.steps * 0.01 >= 5
    slow = Machine(monkeypatch, step=1.0)
    measure(slow, 60)
    assert slow.steps == budget.WARM_UP_STEPS + budget.MEASURED_STEPS == 23


def test_measuring_takes_no_more_than_its_share(monkeypatch):
    machine = Machine(monkeypatch, step=1.0)
    measure(machine, 6)
    assert machine.now - 100 <= 6 + 2 + VALIDATION + CHECKPOINT


def test_a_run_without_validation_is_measured_without(monkeypatch):
    assert measure(Machine(monkeypatch, validation=False), 6).validation == 0


def test_validation_takes_a_tenth_of_the_time_at_most():
    train = fit(TrainConfig(minutes=1), Costs(0.1, 2.0, 0.0), 60)
    assert train.steps // train.validate_every * 2.0 <= 6 and train.validate_every == 180
    assert fit(TrainConfig(minutes=1, validate_every=7), Costs(0.1, 2.0, 0.0), 60).validate_every == 7


def test_frequent_checkpoints_leave_time_for_fewer_steps():
    often = TrainConfig(minutes=1, checkpoint=CheckpointConfig(steps=2))
    assert fit(often, Costs(0.1, 0.0, 0.2), 60).steps == pytest.approx((0.98 * 60 - 0.4) / 0.2, abs=1)


def test_where_nothing_fits_there_is_still_a_step():
    assert fit(TrainConfig(minutes=0.01), Costs(5.0, 9.0, 1.0), 0.6).steps == 1


class Curriculum(Machine):
    """Whose steps take three times as long from one on."""

    def __init__(self, monkeypatch, later: int):
        super().__init__(monkeypatch)
        self.later = later

    def run_step(self) -> None:
        self.work(self.step * (3 if self.progress.step >= self.later else 1))
        self.progress = replace(self.progress, step=self.progress.step + 1)


@pytest.mark.parametrize("later", [2, 100, 600, 10_000])
def test_minutes_hold_the_steps_of_each_phase_at_its_own_speed(later, monkeypatch):
    machine = Curriculum(monkeypatch, later)
    costs = measure(machine, 12, [0, later])
    assert machine.now - 100 <= 12 + 4 * STEP + VALIDATION + CHECKPOINT
    train = fit(TrainConfig(minutes=2), costs, 120 - (machine.now - 100))
    machine.progress = RunState()
    for number in range(train.steps):
        machine.run_step()
        if number % train.validate_every == 0:
            machine.validate()
            machine.work(CHECKPOINT)
    machine.validate()
    machine.work(2 * CHECKPOINT)
    assert 0.93 <= (machine.now - 100) / 120 <= 1.02
