"""The picture of a run."""

from __future__ import annotations

import pytest

from seedbed.training.chart import loss_chart


@pytest.mark.parametrize(
    ("told", "label"),
    [
        ({"bits_per_byte": 2.0}, "bits per byte"),
        ({"loss": 2.0}, "nats a token"),
        ({"loss": 2.0, "accuracy": 0.5}, "loss"),
        ({"loss": 0.0, "reward": 0.5}, "reward"),
    ],
)
def test_a_picture_names_what_it_shows(told, label):
    chart = loss_chart([{"step": step, **told} for step in (1, 2)], "run")
    assert chart is not None and f">{label}<" in chart
