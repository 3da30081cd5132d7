"""Which optimizer, which rates, and how they move over a run. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from seedbed.configuration import at_least, between, positive
from seedbed.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Which optimizer, and its rates."""

    default_rate: ClassVar[float] = 1e-3
    """`rate` where it is left out."""

    name: Literal["muon", "adamw"] = "muon"
    """muon orthogonalises the update of every matrix (Jordan 2024), AdamW moves the rest. adamw: AdamW for all."""

    rate: float | None = None
    """Peak learning rate of everything under adamw; left out: 0.001. muon has four rates instead, below."""

    matrix_rate: float = 0.02
    """Peak learning rate of the matrices inside the blocks under Muon: the same value serves all sizes."""

    embedding_rate: float = 0.05
    """Peak learning rate of the embedding under muon, where AdamW moves it."""

    head_rate: float = 0.004
    """Peak learning rate of an untied output head under muon, where AdamW moves it."""

    vector_rate: float = 0.01
    """Peak learning rate of norm weights under muon, where AdamW moves them."""

    weight_decay: float = 0.0
    """Decoupled decay of matrices; embeddings and norms have none."""

    momentum: float = 0.95
    """Momentum of Muon."""

    beta1: float | None = None
    """First AdamW moment's memory. Left out: 0.8, which suits Muon's pace, under muon; 0.9 under adamw."""

    beta2: float = 0.95
    """Second AdamW moment's memory."""

    epsilon: float | None = None
    """Added to AdamW's denominator. Left out: 1e-10 under muon, 1e-8 under adamw."""

    newton_schulz_steps: int = 5
    """Steps of Muon's orthogonalisation; fewer are cheaper and less exact."""

    def __post_init__(self) -> None:
        positive(self, "rate", "matrix_rate", "embedding_rate", "head_rate", "vector_rate", "epsilon")
        at_least(self, 0, "weight_decay")
        at_least(self, 1, "newton_schulz_steps")
        between(self, 0, 0.9999, "momentum", "beta1", "beta2")
        if self.name == "muon" and self.rate is not None:
            raise ConfigError(
                f"rate is {self.rate}, but muon does not use it",
                "Set matrix_rate, embedding_rate, head_rate and vector_rate, or take --optimizer.name adamw.",
            )


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How every learning rate moves over the run, as a multiple of its peak."""

    name: Literal["warmup_stable_decay", "cosine"] = "warmup_stable_decay"
    """warmup_stable_decay holds the peak, then falls linearly; cosine falls all the way along half a cosine."""

    warmup: float = 0.02
    """Share of the steps over which the rate rises from zero."""

    decay: float = 0.4
    """Share of the steps at the end over which warmup_stable_decay falls."""

    final: float = 0.02
    """Share of the peak that the rates fall to: 0.02 is a fiftieth of it. The last step takes a little more, since the
    fall ends after it, and so a schedule that falls to 0 has no step without effect."""

    def __post_init__(self) -> None:
        between(self, 0, 1, "warmup", "decay", "final")
        together = self.warmup + self.decay
        if self.name == "warmup_stable_decay" and together > 1 + 1e-9:  # 0.7 + 0.3 may round to more than 1
            raise ConfigError(f"warmup and decay together must not exceed the run, 1; they take {together:g}")
