"""Schedules against their formulas, at every step of runs of any length."""

from __future__ import annotations

import itertools
import math
from typing import get_args, get_type_hints

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seedbed.errors import ConfigError
from seedbed.optim.config import ScheduleConfig
from seedbed.optim.schedules import rate_multiple

NAMES = get_args(get_type_hints(ScheduleConfig)["name"])
SHARES = st.floats(0, 1)
STEPS = st.integers(1, 300)


@st.composite
def schedules(draw):
    name = draw(st.sampled_from(NAMES))
    warmup = draw(SHARES)
    own = {
        "warmup_stable_decay": {"fall": draw(st.sampled_from(["linear", "sqrt"]))},
        "polynomial": {"power": draw(st.floats(0.5, 4))},
        "one_cycle": {"begin": draw(SHARES)},
    }.get(name, {})
    return ScheduleConfig(name=name, warmup=warmup, decay=draw(st.floats(0, 1 - warmup)), final=draw(SHARES), **own)


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


def rises(warmup, steps):
    """Steps of the warmup and their multiples."""
    rising = round(warmup * steps)
    return rising, [(step + 1) / (rising + 1) for step in range(rising)]


@given(SHARES, SHARES, st.floats(0.5, 4), STEPS)
def test_linear_and_polynomial_follow_their_formula(warmup, final, power, steps):
    rising, wanted = rises(warmup, steps)
    for config, exponent in (
        (ScheduleConfig(name="linear", warmup=warmup, final=final), 1),
        (ScheduleConfig(name="polynomial", warmup=warmup, final=final, power=power), power),
    ):
        falling = [1 - (step - rising) / (steps - rising) for step in range(rising, steps)]
        falling = [final + (1 - final) * left**exponent for left in falling]
        assert multiples(config, steps) == pytest.approx(wanted + falling, abs=1e-9)


@given(st.floats(0, 0.5), st.floats(0.01, 0.5), SHARES, STEPS)
def test_warmup_stable_decay_can_fall_as_one_minus_a_root(warmup, decay, final, steps):
    config = ScheduleConfig(name="warmup_stable_decay", warmup=warmup, decay=decay, final=final, fall="sqrt")
    rising, wanted = rises(warmup, steps)
    begins = steps - decay * steps
    for step in range(rising, steps):
        gone = max(0.0, step - begins) / (decay * steps)
        wanted.append(final + (1 - final) * (1 - math.sqrt(gone)))
    assert multiples(config, steps) == pytest.approx(wanted, abs=1e-6)


@given(SHARES, STEPS)
def test_inverse_sqrt_follows_its_formula(warmup, steps):
    """min(s/w, √(w/s)) with s and w counted from 1."""
    config = ScheduleConfig(name="inverse_sqrt", warmup=warmup)
    w = round(warmup * steps) + 1
    wanted = [min(s / w, math.sqrt(w / s)) for s in range(1, steps + 1)]
    assert multiples(config, steps) == pytest.approx(wanted, abs=1e-12)


@given(SHARES, SHARES, SHARES, STEPS)
def test_one_cycle_follows_its_formula(warmup, begin, final, steps):
    config = ScheduleConfig(name="one_cycle", warmup=warmup, begin=begin, final=final)
    rising = round(warmup * steps)
    for step, got in enumerate(multiples(config, steps)):
        low, high, share = (begin, 1, (step + 1) / (rising + 1)) if step < rising else (1, final, 0)
        if step >= rising:
            share = (step - rising) / (steps - rising)
        assert got == pytest.approx(high + (low - high) / 2 * (1 + math.cos(math.pi * share)), abs=1e-9)


def test_one_cycle_is_torchs_in_a_long_run():
    """Whose steps are counted a little otherwise at the seams."""
    parameter, steps = torch.nn.Parameter(torch.zeros(1)), 10_000
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    peer = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=steps, pct_start=0.3, div_factor=25, final_div_factor=4, cycle_momentum=False
    )
    config = ScheduleConfig(name="one_cycle", begin=1 / 25, final=1 / 100)
    for step in range(steps - 1):
        assert rate_multiple(config, step, steps) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-3)
        optimizer.step()
        peer.step()


@given(SHARES, STEPS)
def test_constant_stays_once_it_has_risen(warmup, steps):
    rising, wanted = rises(warmup, steps)
    assert multiples(ScheduleConfig(name="constant", warmup=warmup), steps) == wanted + [1.0] * (steps - rising)


@pytest.mark.parametrize("name", NAMES)
def test_one_step_and_no_warmup_is_one_step_at_the_peak(name):
    config = ScheduleConfig(name=name, warmup=0, decay=0, final=0)
    assert multiples(config, 1) == pytest.approx([1.0])
    assert multiples(config, 3)[0] == pytest.approx(1.0)


@given(schedules(), STEPS)
def test_no_step_is_without_effect_and_none_exceeds_the_peak(config, steps):
    assert all(0 < multiple <= 1 for multiple in multiples(config, steps))


@given(schedules(), st.integers(2, 300))
def test_rates_rise_then_fall(config, steps):
    got = multiples(config, steps)
    top = got.index(max(got))
    for before, after in itertools.pairwise(got[: top + 1]):
        assert before <= after + 1e-12
    for before, after in itertools.pairwise(got[top:]):
        assert before >= after - 1e-12


@pytest.mark.parametrize("name", ["cosine", "warmup_stable_decay", "linear", "polynomial", "one_cycle"])
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


@pytest.mark.parametrize(
    ("setting", "name"), [("fall", "warmup_stable_decay"), ("power", "polynomial"), ("begin", "one_cycle")]
)
def test_a_setting_of_another_schedule_is_refused(setting, name):
    with pytest.raises(ConfigError, match=f"{setting} is for the name {name}, not cosine"):
        ScheduleConfig(name="cosine", **{setting: {"fall": "sqrt", "power": 1.5, "begin": 0.1}[setting]})


def test_warmup_left_out_is_longer_for_one_cycle():
    assert [ScheduleConfig(name=name).resolve().warmup for name in ("cosine", "one_cycle")] == [0.02, 0.3]
    assert ScheduleConfig(name="one_cycle", warmup=0.1).resolve().warmup == 0.1
