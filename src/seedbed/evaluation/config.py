"""What is measured. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from seedbed.configuration import at_least, between
from seedbed.errors import ConfigError
from seedbed.inference.config import WEIGHTS, OpenConfig

TASK_NAMES = ("bits_per_byte", "skills", "refusals", "answers")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Measures a model."""

    model: Path
    """Model folder (ours or one of transformers), run or checkpoint."""

    data_dir: Path
    """Where the tasks find their data: skills reads skills.jsonl (rows of skill, prompt, answer), refusals
    refusals.jsonl (rows of harmful, harmless), bits_per_byte the validation shards of a corpus folder, answers
    answers.jsonl: conversations, of which the last turn is asked for."""

    out: Path
    """Report folder to write."""

    tasks: list[str] = field(default_factory=lambda: ["bits_per_byte", "skills"])
    """bits_per_byte: how well text is predicted. skills: how many questions are answered exactly. refusals: how often
    requests that do harm are refused, and such as look like them and do none.
    answers: how near answers come to those of people, in conversations."""

    longest_answer: int = 128
    """Tokens that answers may have, of the task answers."""

    batch: int = 32
    """Rows, of text or of questions, that go through the model at once."""

    max_bytes: int = 200_000
    """Bytes of text that bits_per_byte reads: the beginning of each validation document."""

    weights: WEIGHTS = "stored"
    """int8: the layers in 8-bit whole numbers, rounded as the model is opened; the report tells what that costs."""

    device: Literal["auto", "cuda", "mps", "xpu", "cpu"] = "auto"
    """auto: CUDA or ROCm, else MPS, else XPU, else CPU."""

    def __post_init__(self) -> None:
        between(self, 1, 10_000, "batch")
        at_least(self, 1, "max_bytes", "longest_answer")
        if not self.tasks:
            raise ConfigError("tasks: none is given", f"Tasks: {', '.join(TASK_NAMES)}")
        for task in self.tasks:
            if task not in TASK_NAMES:
                raise ConfigError(f"tasks: there is no task {task!r}", f"Tasks: {', '.join(TASK_NAMES)}")


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(OpenConfig):
    """Measures how fast a model answers, and what it takes."""

    out: Path | None = None
    """Folder to write: result.json, a page and a picture. Left out: only the table is printed."""

    batch: list[int] = field(default_factory=lambda: [1, 8, 32])
    """Requests at once; each of these is measured with each length."""

    prompt_tokens: list[int] = field(default_factory=lambda: [64])
    """Lengths of prompts, whose tokens are drawn at random."""

    output_tokens: list[int] = field(default_factory=lambda: [64])
    """Lengths of answers: the model ends none before, and greedy choice makes them."""

    repeats: int = 3
    """Measurements of each case, in turns with the others; their median is told, the least and the most."""

    warm_up: int = 1
    """Rounds before the first that counts: kernels are compiled, memory is taken."""

    seed: int = 0
    """Of the prompts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, most in (("batch", 10_000), ("prompt_tokens", 2**20), ("output_tokens", 2**20)):
            numbers = getattr(self, name)
            if not numbers or any(not 1 <= number <= most for number in numbers):
                raise ConfigError(f"{name} must be numbers from 1 to {most:,}, got {numbers}")
        at_least(self, 1, "repeats")
        between(self, 0, 1000, "warm_up")
        between(self, 0, 2**63 - 1, "seed")
