"""The picture of a run: its loss over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from seedbed.visual.curves import line_chart

LOSS_PICTURE = "loss.svg"
"""In the folder of a finished run."""


def loss_chart(records: Sequence[Mapping[str, Any]], title: str) -> str | None:
    """Training and validation over the steps, of the records of metrics.jsonl: bits per byte where they are told, else
    the loss; of a policy its rewards, since its loss is nearly nought all the time. None when there is nothing to
    draw."""
    told = set().union(*records)
    key, label = ("bits_per_byte", "bits per byte") if "bits_per_byte" in told else ("loss", "nats a token")
    if told & {"margin", "accuracy"}:  # of answers, not of tokens
        label = "loss"
    elif "reward" in told:
        key, label = "reward", "reward"
    lines = {
        name: [(record["step"], record[place]) for record in records if place in record]
        for name, place in (("training", key), ("validation", f"val_{key}"))
    }
    if not any(lines.values()):
        return None
    return line_chart(lines, title=title, x_label="optimizer steps", y_label=label)
