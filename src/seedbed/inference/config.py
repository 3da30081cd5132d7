"""What is asked of a model. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from seedbed.configuration import at_least, between, positive
from seedbed.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How the next token is chosen, and when to stop."""

    max_tokens: int = 100
    """Longest continuation, in tokens."""

    temperature: float = 0.8
    """Divides the logits: below 1 sharper, above 1 flatter; 0 always takes the likeliest token (greedy)."""

    top_k: int | None = None
    """Choose among the k likeliest tokens only. Left out: all."""

    top_p: float | None = None
    """Choose among the fewest tokens that together hold this much probability. Left out: all."""

    min_p: float | None = None
    """Choose among tokens at least this fraction as likely as the likeliest. Left out: all."""

    repetition_penalty: float = 1.0
    """Divides the positive, and multiplies the negative, logits of tokens that occurred already; 1 changes nothing."""

    seed: int = 0
    """The same request with the same seed gives the same text. Give another seed for another text."""

    stop: list[str] = field(default_factory=list)
    """Texts that end the continuation; they are not part of it."""

    def __post_init__(self) -> None:
        at_least(self, 1, "max_tokens", "top_k")
        at_least(self, 0, "temperature")
        between(self, 0, 2**63 - 1, "seed")
        between(self, 0, 1, "top_p", "min_p")
        positive(self, "repetition_penalty", "top_p")
        if "" in self.stop:
            raise ConfigError("stop holds an empty text, which would end every continuation at once")


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How many are answered at once."""

    rows: int = 32
    """Continuations that are made at once; others wait."""

    step_tokens: int = 512
    """Tokens that a step computes: one of each continuation, the rest of prompts. More is faster for long prompts, and
    lets those who are being answered wait longer."""

    cache_tokens: int | None = None
    """Tokens whose keys and values are kept, in memory that is taken when it is first needed. Left out: `rows` times
    the model's context, but no more than 4 GB."""

    def __post_init__(self) -> None:
        between(self, 1, 10_000, "rows")
        between(self, 1, 2**20, "step_tokens")
        between(self, 1, 2**40, "cache_tokens")


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(SamplingConfig):
    """Continues texts."""

    model: Path
    """Model folder (ours or one of transformers), run or checkpoint."""

    prompt: str | None = None
    """The text to continue."""

    prompts: Path | None = None
    """A file with one prompt a line; the answers come as one JSON object a line."""

    demo: bool = False
    """Continue a few built-in openings."""

    device: Literal["auto", "cuda", "mps", "xpu", "cpu"] = "auto"
    """auto: CUDA or ROCm, else MPS, else XPU, else CPU."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.prompt is not None) + (self.prompts is not None) + self.demo != 1:
            raise ConfigError("give one of prompt, prompts and demo", 'For example --prompt "Once upon a time".')


@dataclass(frozen=True, kw_only=True)
class ChatConfig(SamplingConfig):
    """Talks to a model, turn by turn."""

    model: Path
    """Model folder (ours or one of transformers), run or checkpoint."""

    template: str | None = None
    """Chat template: chatml, instruct, chat, llama3, alpaca, a .jinja file, or Jinja source. Left out: the one
    stored with the model's tokenizer."""

    system: str | None = None
    """A system message to begin with."""

    device: Literal["auto", "cuda", "mps", "xpu", "cpu"] = "auto"
    """auto: CUDA or ROCm, else MPS, else XPU, else CPU."""
