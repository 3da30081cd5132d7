"""Schedules against their formulas, at every step of runs of any length."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedbed.errors import ConfigError
from seedbed.optim.config import ScheduleConfig
from seedbed.optim.schedules import rate_multiple

SHARES = st.floats(0, 1)
STEPS = st.integers(1, 300)


@st.composite
def schedules(draw):
    name = draw(st.sampled_from(["cosine", "warmup_stable_decay"]))
    warmup = draw(SHARES)
    return ScheduleConfig(name=name, warmup=warmup, decay=draw(st.floats(0, 1 - warmup)), final=draw(SHARES))


def multiples(config, steps):
    return [rate_multiple(config, step, steps) for step in range(steps)]


@given(SHARES, SHARES, STEPS)
def test_cosine_follows_its_formula(warmup, final, steps):
    config = ScheduleConfig(name="cosine", warmup=warmup, final=final)
    rising = round(warmup * steps)
    for step, got in enumerate(multiples(config, steps)):
        if step < rising:
            wanted = (step + 1) / (rising + 1)
        else:
            wanted = final + (1 - final) * (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2
        assert got == pytest.approx(wanted, abs=1e-12)


@given(st.floats(0, 0.5), st.floats(0, 0.5), SHARES, STEPS)
def test_warmup_stable_decay_follows_its_formula(warmup, decay, final, steps):
    config = ScheduleConfig(name="warmup_stable_decay", warmup=warmup, decay=decay, final=final)
    rising, falling = round(warmup * steps), decay * steps
    for step, got in enumerate(multiples(config, steps)):
        if step < rising:
            wanted = (step + 1) / (rising + 1)
        elif step <= steps - falling:
            wanted = 1.0
        else:
            wanted = final + (1 - final) * (steps - step) / falling
        assert got == pytest.approx(wanted, abs=1e-12)


@given(schedules(), STEPS)
def test_no_step_is_without_effect_and_none_exceeds_the_peak(config, steps):
    assert all(0 < multiple <= 1 for multiple in multiples(config, steps))


@given(schedules(), st.integers(50, 300))
def test_rates_move_without_a_jump(config, steps):
    """From one step to the next the rate changes by no more than the steepest of its slopes."""
    slopes = [1 / (round(config.warmup * steps) + 1), 1 / max(1, config.decay * steps)]
    if config.name == "cosine":
        slopes[1] = math.pi / 2 / max(1, steps - round(config.warmup * steps))
    got = multiples(config, steps)
    for before, after in itertools.pairwise(got):
        assert abs(after - before) <= max(slopes) + 1e-9


@given(schedules(), st.integers(2, 300))
def test_rates_rise_then_fall(config, steps):
    got = multiples(config, steps)
    top = got.index(max(got))
    assert got[: top + 1] == sorted(got[: top + 1])
    assert got[top:] == sorted(got[top:], reverse=True)


@pytest.mark.parametrize("name", ["cosine", "warmup_stable_decay"])
def test_a_long_run_ends_at_its_final_rate(name):
    config = ScheduleConfig(name=name, final=0.1)
    assert rate_multiple(config, 99_999, 100_000) == pytest.approx(0.1, abs=1e-4)


@pytest.mark.parametrize("setting", [{"warmup": -0.1}, {"decay": 1.5}, {"final": float("nan")}, {"warmup": 2}])
def test_a_share_outside_the_run_is_refused(setting):
    with pytest.raises(ConfigError, match=f"{next(iter(setting))} must be between 0 and 1"):
        ScheduleConfig(**setting)


def test_rising_and_falling_at_once_is_refused():
    with pytest.raises(ConfigError, match=r"warmup and decay together .* 1\.2"):
        ScheduleConfig(name="warmup_stable_decay", warmup=0.7, decay=0.5)
