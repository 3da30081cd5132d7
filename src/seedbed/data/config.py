"""What `prepare` and `tokenize` are told. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seedbed.configuration import at_least, between, positive
from seedbed.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """From raw text to a corpus."""

    source: str = "stdlib"
    """A file or folder of text (.txt, .md, .jsonl, .jsonl.zst, .parquet), or `stdlib`: the text of Python's library."""

    out: Path
    """The corpus folder to write; it must not exist yet."""

    validation_fraction: float = 0.02
    """Share of the text, in bytes, that is kept apart to measure what was learned. At most a half."""

    max_bytes: int | None = None
    """Take a sample of about this many bytes: documents in the order of their hash. Everything when left out."""

    seed: int = 0
    """Chooses which documents are validation and which come into a sample."""

    def __post_init__(self) -> None:
        positive(self, "validation_fraction")
        between(self, 0, 0.5, "validation_fraction")
        at_least(self, 2, "max_bytes")
        at_least(self, 0, "seed")
        if not self.source:
            raise ConfigError("source must be stdlib, a file or a folder, got an empty text")


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig:
    """From a corpus and a tokenizer to tokens."""

    corpus: Path
    """The corpus folder, as `seedbed prepare` writes it."""

    tokenizer: Path
    """The tokenizer folder, as `seedbed tokenizer` writes it; a model folder serves too."""

    out: Path
    """The tokens folder to write; it must not exist yet."""

    verify: bool = False
    """Hash every byte of the inputs before use; otherwise what is read is checked as it is read."""
