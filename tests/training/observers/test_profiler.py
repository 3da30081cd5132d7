"""A look at where the time goes."""

from __future__ import annotations

import json

from seedbed.training.observers.config import ProfileConfig
from seedbed.training.observers.profiler import Profiler
from tests.tiny import tiny_trainer


def trace(run):
    return json.loads((run / "profile" / "trace.json").read_bytes())["traceEvents"]


def optimizer_steps(run) -> int:
    """Muon and AdamW make one each."""
    names = [event.get("name", "") for event in trace(run)]
    return sum(name.startswith("Optimizer.step#AdamW.step") for name in names)


def test_the_chosen_steps_are_in_a_trace_and_a_table(tmp_path):
    tiny_trainer(tmp_path, steps=6, observers=[Profiler(ProfileConfig(from_step=3, steps=2))]).train()
    assert optimizer_steps(tmp_path) == 2
    table = (tmp_path / "profile" / "operators.txt").read_text()
    assert "aten::" in table and "Self CPU" in table


def test_a_run_that_stops_early_still_shows_what_was_recorded(tmp_path):
    tiny_trainer(tmp_path, steps=2, observers=[Profiler(ProfileConfig(from_step=1, steps=9))]).train()
    assert optimizer_steps(tmp_path) == 2


def test_a_run_past_the_chosen_steps_records_nothing(tmp_path):
    tiny_trainer(tmp_path, steps=2, observers=[Profiler(ProfileConfig(from_step=9, steps=1))]).train()
    assert not (tmp_path / "profile").exists()
