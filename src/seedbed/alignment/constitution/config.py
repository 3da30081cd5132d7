"""How a model is aligned. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seedbed.configuration import between
from seedbed.errors import ConfigError
from seedbed.inference.config import CONSTRAINTS, OpenConfig, SamplingConfig


@dataclass(frozen=True, kw_only=True)
class ConstitutionConfig(SamplingConfig, OpenConfig):
    """Lets a model criticise and revise its own answers by principles, and writes what it prefers by them."""

    prompts: Path
    """What the model is asked: rows of {prompt}, {question} or {instruction, input}, .json, .jsonl, .csv, .tsv or
    .parquet, one file or a glob."""

    out: Path
    """Folder to write: preferences.jsonl, for seedbed dpo, and transcripts.jsonl, to look at."""

    principles: Path | None = None
    """Rows of {name, critique, revision}: what the model is asked to find wrong with its answer, and to do about it.
    Left out: a few that come with seedbed, on harm, honesty and help."""

    rounds: int = 1
    """Times that each answer is criticised and revised, each by a principle drawn for it."""

    max_tokens: int = 256
    """Longest answer, critique or revision, in tokens. A revision that is cut off there is left out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        OpenConfig.__post_init__(self)
        between(self, 1, 16, "rounds")
        for name in (*CONSTRAINTS, "logprobs"):
            if getattr(self, name) is not None:
                raise ConfigError(f"{name} is for a single answer", "Answers, critiques and revisions are free text.")
