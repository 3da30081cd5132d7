"""What all stages are told that teach a model what to say rather than something else. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from seedbed.configuration import at_least
from seedbed.errors import ConfigError
from seedbed.optim.config import OptimizerConfig
from seedbed.tuning.config import TuningConfig


@dataclass(frozen=True, kw_only=True)
class AlignmentOptimizerConfig(OptimizerConfig):
    """Which optimizer, and its rates: those of a model of a billion parameters that shall hardly change. One of a few
    million learns little at them; docs/alignment.md tells which ones such models want."""

    default_rate: ClassVar[float] = 5e-7
    adapter_multiple: ClassVar[float] = 10.0  # as trl's examples have it; Schulman et al. 2025, "LoRA without regret"

    name: Literal["muon", "normuon", "adamw", "lion", "adafactor", "sgd"] = "adamw"
    """adamw, lion, adafactor, sgd: that one for all. muon orthogonalises the update of every matrix, AdamW moves the
    rest; normuon: so too, with rows of even size."""

    rate: float | None = None
    """Peak learning rate of everything under adamw; left out: 0.0000005, for an adapter ten times as much. lion has a
    tenth of it, sgd a hundred times; muon has four rates instead, below."""

    matrix_rate: float = 0.0002
    """Peak learning rate of the matrices inside the blocks under Muon."""

    embedding_rate: float = 0.0005
    """Peak learning rate of all that is looked up under muon, where AdamW moves it."""

    head_rate: float = 0.00004
    """Peak learning rate of an untied output head, and of the routers of experts, under muon, where AdamW moves
    them."""

    vector_rate: float = 0.0001
    """Peak learning rate of norm weights, biases and other vectors under muon, where AdamW moves them."""


@dataclass(frozen=True, kw_only=True)
class AnswersConfig(TuningConfig):
    """What every stage is told that learns from answers which people have judged."""

    validation_fraction: float = 0.05
    """Share of the data to validate on where validation is left out, chosen by the hash of each prompt, so that none is
    on both sides; at least one."""

    useless: Literal["error", "drop"] = "error"
    """What happens to a row that is well formed but teaches nothing (equal answers, an empty answer): it ends the run,
    or is left out and counted."""

    overlong: Literal["error", "drop", "truncate"] = "error"
    """What happens to an answer that with its prompt is longer than a row: it ends the run, is left out, or loses its
    end. A prompt that leaves no room for an answer is never cut: the row is left out."""

    length: int | None = None
    """Tokens of a row. Left out: the model's context, at most 512."""

    packing: bool = True
    """Whether several answers share a row, none of which sees another. false: each has its own, filled with padding.
    Moves weights by rounding alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 2, "length")
        if self.lora.dropout:
            raise ConfigError(f"lora.dropout is {self.lora.dropout}: answers are learned from without dropout")
