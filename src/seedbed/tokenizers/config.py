"""What to grow a tokenizer from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seedbed.configuration import between, positive
from seedbed.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Which tokenizer to make, and of what text."""

    corpus: Path
    """Corpus folder, made by `seedbed prepare`."""

    out: Path
    """Tokenizer folder to write; it must not exist, or be empty."""

    kind: Literal["byte_pair", "bytes", "characters"] = "byte_pair"
    """byte_pair learns frequent pieces of words; bytes needs no training; characters takes the corpus' alphabet."""

    vocab_size: int | None = None
    """Number of tokens, the 7 special ones among them. byte_pair: exactly so many (8,192 if left out). characters: at
    most so many, the most frequent first (left out: all). bytes has 263 and takes no other."""

    max_bytes: int = 64 * 2**20
    """Bytes of text byte_pair learns from at most, spread over the whole corpus. It bounds memory and time."""

    verify: bool = False
    """Hash every byte of the inputs before use; otherwise what is read is checked as it is read."""

    def __post_init__(self) -> None:
        least = {"byte_pair": 263, "bytes": 263, "characters": 8}[self.kind]
        between(self, least, 2**24, "vocab_size")
        positive(self, "max_bytes")
        if self.kind == "bytes" and self.vocab_size not in (None, 263):
            raise ConfigError(f"vocab_size must be 263 or left out for the kind bytes, got {self.vocab_size}")
