"""How a model is fine-tuned. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seedbed.configuration import at_least, between
from seedbed.training.config import StageConfig


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(StageConfig):
    """Teaches a model to answer, from conversations: only what the assistant says is learned, every weight moves."""

    model: Path
    """Model folder, run or checkpoint to begin with."""

    data: Path
    """Conversations, .json, .jsonl, .csv or .parquet: rows of messages, ShareGPT's conversations, prompt/response,
    question/answer, instruction/input/output, Open Assistant's trees, or text, of which all is learned."""

    validation: Path | None = None
    """Conversations to validate on. Left out: a share of the data is kept apart."""

    validation_fraction: float = 0.02
    """That share, chosen by the hash of each conversation; at least one."""

    template: str | None = None
    """Chat template: chatml, instruct, chat, llama3, alpaca, a .jinja file, or Jinja source. Left out: the one
    stored with the model's tokenizer."""

    length: int | None = None
    """Tokens of a row that conversations are packed into. Left out: the model's context, at most 512."""

    def __post_init__(self) -> None:
        at_least(self, 2, "length")
        between(self, 0, 0.5, "validation_fraction")
