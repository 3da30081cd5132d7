"""What the data of a training run is told: folders, mixtures, packing, curricula. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from seedbed.configuration import at_least, between, positive
from seedbed.errors import ConfigError

FARTHEST = 2**40
"""Steps, tokens: beyond what any run comes to, and within what 64 bits count with."""


@dataclass(frozen=True, kw_only=True)
class MixturePart:
    """A tokens folder and how much of a mixture it is, by one of the three keys below, the same in all parts. With
    none of them every folder is gone through once an epoch."""

    tokens: Path
    """Folder that `seedbed tokenize` wrote."""

    weight: float | None = None
    """Share of the rows; only the ratios of all weights count."""

    epochs: float | None = None
    """How often an epoch of the mixture goes through this folder."""

    token_budget: float | None = None
    """Tokens an epoch of the mixture takes from this folder, which begins again when it is used up."""

    def __post_init__(self) -> None:
        positive(self, "weight", "epochs", "token_budget")
        between(self, 0, FARTHEST, "weight", "epochs")
        between(self, 0, 2**60, "token_budget")
        if len(self.given) > 1:
            raise ConfigError(f"{self.given[1]} cannot stand beside {self.given[0]}: give one of them")

    @property
    def given(self) -> list[str]:
        """Which of the three are set."""
        return [name for name in ("weight", "epochs", "token_budget") if getattr(self, name) is not None]


@dataclass(frozen=True, kw_only=True)
class MixturePhase:
    """From a step on, other weights."""

    from_step: int
    """The first step of the phase."""

    weights: list[float]
    """One for each folder of the mixture, 0 or more."""

    def __post_init__(self) -> None:
        between(self, 1, FARTHEST, "from_step")
        if not all(0 <= weight <= FARTHEST for weight in self.weights) or not any(self.weights):
            raise ConfigError(f"weights must be between 0 and {FARTHEST}, and not all 0, got {self.weights}")


@dataclass(frozen=True, kw_only=True)
class LengthPhase:
    """From a step on, another length of rows."""

    from_step: int
    """The first step of the phase; that of the first is 0."""

    length: int
    """Tokens of a row: a divisor of data.length."""

    def __post_init__(self) -> None:
        between(self, 0, FARTHEST, "from_step")
        at_least(self, 2, "length")


@dataclass(frozen=True, kw_only=True)
class TrainingDataConfig:
    """The text that is learned from, and how it becomes rows."""

    tokens: Path | None = None
    """Folder that `seedbed tokenize` wrote."""

    mixture: list[MixturePart] = field(default_factory=list)
    """Several such folders of one tokenizer instead."""

    phases: list[MixturePhase] = field(default_factory=list)
    """Weights of the mixture from later steps on, for parts that have weights. Left out: they stay."""

    length: int | None = None
    """Tokens of a training row. Left out: the model's context."""

    packing: Literal["concatenate", "isolate", "best_fit"] = "concatenate"
    """concatenate: rows are cut from the text as it stands, across documents. isolate: so too, but no document sees
    another. best_fit: whole documents are packed to rows with as little padding as can be, and isolated."""

    stride: int | None = None
    """Tokens from the beginning of a row to that of the next; fewer than length makes rows overlap. Left out: length.
    Not with best_fit."""

    lengths: list[LengthPhase] = field(default_factory=list)
    """Shorter rows at first: each row is cut into rows of this length, so that a step has the same tokens."""

    infilling: float = 0.0
    """Share of the documents in a row that become fill-in-the-middle; for concatenate, and a tokenizer made with
    infilling."""

    workers: int = 0
    """Threads that make batches ahead, while the device computes. The batches are the same for any number."""

    def __post_init__(self) -> None:
        at_least(self, 2, "length")
        between(self, 1, FARTHEST, "stride")
        at_least(self, 0, "workers")
        between(self, 0, 1, "infilling")
        if self.tokens is not None and self.mixture:
            raise ConfigError("tokens cannot stand beside mixture: give one of them")
        kinds = {tuple(part.given) for part in self.mixture}
        if len(kinds) > 1:
            raise ConfigError("mixture takes one of weight, epochs and token_budget, the same in all its parts")
        if any(len(phase.weights) != len(self.mixture) for phase in self.phases):
            raise ConfigError(f"phases needs {len(self.mixture)} weights in each, one for each part of the mixture")
        if self.phases and kinds != {("weight",)}:
            raise ConfigError("phases needs a mixture whose parts have weights")
        for name in ("phases", "lengths"):
            firsts = [phase.from_step for phase in getattr(self, name)]
            if sorted(set(firsts)) != firsts:
                raise ConfigError(f"{name} must follow one another, got from_step {', '.join(map(str, firsts))}")
        if self.lengths and self.lengths[0].from_step != 0:
            raise ConfigError(f"lengths must begin with from_step 0, got {self.lengths[0].from_step}")
        if self.stride is not None and self.packing == "best_fit":
            raise ConfigError("stride is for the packing concatenate or isolate, not best_fit")
        if self.infilling and self.packing != "concatenate":
            raise ConfigError(f"infilling is for the packing concatenate, not {self.packing}")

    @property
    def parts(self) -> list[MixturePart]:
        """Every folder; ConfigError when there is none."""
        if self.tokens is not None:
            return [MixturePart(tokens=self.tokens)]
        if not self.mixture:
            problem = "data.tokens is required: a folder that `seedbed tokenize` wrote"
            raise ConfigError(problem, "Give --data.tokens, or data.tokens or data.mixture in a config file.")
        return self.mixture
