"""Preferences and judgements that a tiny model can learn within seconds, and the configs of runs over them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from seedbed.alignment.direct.config import DirectConfig, KtoConfig
from seedbed.alignment.reward_models.config import RewardConfig
from seedbed.configuration import from_arguments

C = TypeVar("C", DirectConfig, KtoConfig, RewardConfig)

QUICK = ("--train.batch=4", "--train.log_every=1", "--train.device=cpu", "--optimizer.rate=0.003")

PREFERENCES = [
    {"prompt": f"{letter}?", "chosen": "yes" + letter, "rejected": "no" + "!" * (i % 3)}
    for i, letter in enumerate("abcdefghijklmnop")
]
JUDGEMENTS = [
    {"prompt": row["prompt"], "completion": row[kind], "label": kind == "chosen"}
    for row in PREFERENCES
    for kind in ("chosen", "rejected")
]


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def config(kind: type[C], base: Path, data: Path, out: Path, *arguments: str) -> C:
    """Of a run that takes milliseconds a step."""
    settings = (f"--model={base}", f"--data={data}", f"--out={out}", "--validation_fraction=0.25")
    return from_arguments(kind, [*settings, *QUICK, *arguments])
