"""What `seedbed quickstart` is told. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seedbed.configuration import between, positive
from seedbed.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class QuickstartConfig:
    """The whole way: prepare → tokenizer → tokenize → pretrain → finetune → dpo → grpo, evaluated between → report."""

    corpus: str = "stdlib"
    """The text to learn from: stdlib (Python's own library), or a file or folder of .txt, .md, .jsonl, .csv, .html or
    .parquet."""

    minutes: float = 8.0
    """Time for all of it, about, but two or three at least. Training steps are counted out to fit this machine."""

    out: Path = Path("runs/quickstart")
    """Folder for everything that is made. The same command goes on in it after a stop."""

    seed: int = 0
    """Of the questions, the order of data and the first weights."""

    device: Literal["auto", "cuda", "mps", "xpu", "cpu"] = "auto"
    """auto: CUDA or ROCm, else MPS, else XPU, else CPU."""

    def __post_init__(self) -> None:
        positive(self, "minutes")
        between(self, 0, 10**6, "minutes")
        if not self.corpus:
            raise ConfigError("corpus must be stdlib, a file or a folder, got an empty text")
        between(self, 0, 2**62, "seed")
