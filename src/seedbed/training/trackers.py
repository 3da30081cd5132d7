"""Where numbers go while a run goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from seedbed.runs import write_atomic, writing


class JsonLines:
    """One JSON object a line, each with its "step". Lines beyond a step can be cut off, for a run that goes back."""

    def __init__(self, path: Path):
        self.path = path

    def append(self, record: dict[str, Any]) -> None:
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")

    def sync(self) -> None:
        """Everything so far reaches the disk: before a checkpoint claims that step."""
        if self.path.exists():
            with writing(self.path), self.path.open("rb") as file:
                os.fsync(file.fileno())

    def records(self) -> list[dict[str, Any]]:
        """All whole lines; one that a crash cut off is left out."""
        if not self.path.exists():
            return []
        records = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        return records

    def cut(self, step: int) -> None:
        """Drops every line of a later step."""
        kept = [record for record in self.records() if record["step"] <= step]
        write_atomic(self.path, "".join(json.dumps(record) + "\n" for record in kept))
