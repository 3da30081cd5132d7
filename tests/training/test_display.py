"""What a person sees of a run, in a terminal of any width and where there is none."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from seedbed.training import display
from seedbed.training.display import Display

METRICS = {"loss": 3.0, "bits_per_byte": 2.5}


def shown(monkeypatch, columns: int, steps: int = 123_456, **settings: bool) -> str:
    """The last line of a run in a terminal of so many columns."""
    screen = Display("pretrain", flops_per_token=1, peak_flops=100_000, **settings)
    screen.console = Console(
        file=io.StringIO(), force_terminal=True, width=columns, color_system=None, legacy_windows=False
    )
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with screen.open(steps, done=0):
        screen.validation(METRICS)
        screen.step(steps - 1, 4.0, 123_456, 1.0)
        screen.bar.refresh()
    return screen.console.file.getvalue()


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 109])
def test_a_narrow_terminal_keeps_step_and_time_left_whole(columns, monkeypatch):
    line = shown(monkeypatch, columns)
    assert "123455/123456" in line and "left" in line and "…" not in line
    assert "MFU" not in line and "━" not in line


def test_eighty_columns_hold_loss_validation_and_speed(monkeypatch):
    line = shown(monkeypatch, 80, steps=9999)
    assert "loss 4.000  val 2.500 bits/byte  123,456 tok/s left" in line


def test_a_wide_terminal_shows_all(monkeypatch):
    line = shown(monkeypatch, 140)
    assert "MFU 123%" in line and "━" in line


def test_mfu_is_left_off_where_it_says_little(monkeypatch):
    assert "MFU" not in shown(monkeypatch, 140, shows_mfu=False)


def test_a_run_shows_itself_where_there_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setattr(display, "PLAIN_INTERVAL", 0.0)
    screen = Display("pretrain", flops_per_token=1, peak_flops=100)
    with screen.open(steps=10, done=0):
        screen.validation(METRICS)
        screen.step(1, 4.0, 50, 1.0)
    said = capsys.readouterr().err
    assert "pretrain step 1/10" in said and "loss 4.000" in said and "50 tok/s" in said and "MFU 50%" in said
    assert "val 2.500 bits/byte" in said


def test_the_last_step_is_told_however_short_the_run_was(capsys):
    screen = Display("finetune", flops_per_token=1, peak_flops=100)
    with screen.open(steps=2, done=0):
        screen.validation({"loss": 3.0})
        for step in (1, 2):
            screen.step(step, 4.0, 50, 1.0)
    said = capsys.readouterr().err
    assert "finetune step 2/2" in said and "val 3.000 nats/token" in said and "step 1/2" not in said


def test_what_is_rewarded_is_told_by_its_reward(capsys):
    screen = Display("grpo", flops_per_token=1, peak_flops=100)
    with screen.open(steps=1, done=0):
        screen.validation({"loss": -0.5, "reward": 0.5, "length": 3.0})
        screen.step(1, 0.0, 50, 1.0)
    said = capsys.readouterr().err
    assert "val reward 0.500" in said and "nats" not in said


@pytest.mark.parametrize("terminal", [True, False])
def test_what_was_measured_after_the_last_step_is_told(terminal, monkeypatch):
    screen = Display("dpo", flops_per_token=1, peak_flops=1)
    screen.console = Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    with screen.open(1, done=0):
        screen.validation({"loss": 3.0, "accuracy": 0.5})
        screen.step(1, 4.0, 8, 1.0)
        screen.validation({"loss": 2.0, "accuracy": 0.75})
    last = [line for line in screen.console.file.getvalue().splitlines() if "1/1" in line][-1]
    assert "val 2.000, 75.0% right" in last
