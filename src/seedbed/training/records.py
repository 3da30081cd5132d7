"""The records of a run on its own disk, which every other tracker is told of."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seedbed.runs import parse_json, writing
from seedbed.shards import write_rows


class JsonLines:
    """One JSON object a line, each with its "step". Lines beyond a step can be cut off, for a run that goes back."""

    def __init__(self, path: Path):
        self.path = path

    def append(self, record: dict[str, Any]) -> None:
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")

    def sync(self) -> None:
        """Everything so far reaches the disk: before a checkpoint claims that step."""
        if self.path.exists():
            with writing(self.path), self.path.open("rb") as file:
                os.fsync(file.fileno())

    def records(self) -> list[dict[str, Any]]:
        """All lines up to the first that is no record, such as one that a crash cut off."""
        if not self.path.exists():
            return []
        records = []
        for line in self.path.read_bytes().splitlines():
            try:
                record = parse_json(line)
            except ValueError:
                break
            if not isinstance(record, dict) or type(record.get("step")) is not int:
                break
            records.append(record)
        return records

    def cut(self, step: int) -> None:
        """Drops every line of a later step."""
        if not self.path.exists():
            return
        kept = [record for record in self.records() if record["step"] <= step]
        write_rows(self.path, kept)


def finite(numbers: Mapping[str, float]) -> dict[str, float]:
    """Those that JSON can hold: it has no NaN, which a step without any target has for its mean loss."""
    return {name: number for name, number in numbers.items() if math.isfinite(number)}
