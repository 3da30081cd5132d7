"""What is measured. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from seedbed.configuration import at_least
from seedbed.errors import ConfigError
from seedbed.inference.config import WEIGHTS

TASK_NAMES = ("bits_per_byte", "skills")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Measures a model."""

    model: Path
    """Model folder (ours or one of transformers), run or checkpoint."""

    data_dir: Path
    """Where the tasks find their data: skills reads skills.jsonl (rows of skill, prompt, answer), bits_per_byte the
    validation shards of a corpus folder."""

    out: Path
    """Report folder to write."""

    tasks: list[str] = field(default_factory=lambda: list(TASK_NAMES))
    """bits_per_byte: how well text is predicted. skills: how many questions are answered exactly."""

    batch: int = 32
    """Rows, of text or of questions, that go through the model at once."""

    max_bytes: int = 200_000
    """Bytes of text that bits_per_byte reads: the beginning of each validation document."""

    weights: WEIGHTS = "stored"
    """int8: the layers in 8-bit whole numbers, rounded as the model is opened; the report tells what that costs."""

    device: Literal["auto", "cuda", "mps", "xpu", "cpu"] = "auto"
    """auto: CUDA or ROCm, else MPS, else XPU, else CPU."""

    def __post_init__(self) -> None:
        at_least(self, 1, "batch", "max_bytes")
        if not self.tasks:
            raise ConfigError("tasks: none is given", f"Tasks: {', '.join(TASK_NAMES)}")
        for task in self.tasks:
            if task not in TASK_NAMES:
                raise ConfigError(f"tasks: there is no task {task!r}", f"Tasks: {', '.join(TASK_NAMES)}")
