"""How a model is adapted while its own weights rest. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import sqrt
from typing import Literal, Self, cast

from seedbed.configuration import at_least, between, positive
from seedbed.errors import ConfigError

MOST_RANK = 1024
"""The product of two matrices of a higher one is no small change any more."""


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """A product of two small matrices beside large ones (Hu et al. 2021, arXiv:2106.09685)."""

    rank: int = 8
    """Rows of the one small matrix, columns of the other: how much the change can hold."""

    alpha: float = cast(float, None)
    """The product is multiplied with alpha / rank. Left out: twice the rank."""

    dropout: float = 0.0
    """Share of the inputs that the small matrices do not see in training."""

    targets: list[str] = field(default_factory=lambda: ["query", "value"])
    """Layers that it changes, by the ends of their names, or whole ones, in which * stands for anything: down,
    "attention.*", "blocks.0.*", "*"."""

    rank_stabilized: bool = False
    """rsLoRA: multiplied with alpha / √rank, so that a higher rank does not learn more slowly (Kalajdzievski 2023,
    arXiv:2312.03732)."""

    up_rate: float = 1.0
    """LoRA+: the matrix that begins at nought moves so many times as fast as the other; 16 is usual (Hayou et al. 2024,
    arXiv:2402.12354)."""

    def __post_init__(self) -> None:
        between(self, 1, MOST_RANK, "rank")
        positive(self, "alpha", "up_rate")
        between(self, 0, 0.95, "dropout")
        _some(self.targets)

    def resolve(self) -> Self:
        """With alpha filled in where it is left out."""
        return self if self.alpha is not None else replace(self, alpha=2.0 * self.rank)

    @property
    def scale(self) -> float:
        """What the product of both matrices is multiplied with."""
        return self.resolve().alpha / (sqrt(self.rank) if self.rank_stabilized else self.rank)


@dataclass(frozen=True, kw_only=True)
class Ia3Config:
    """A factor for each output of some layers, and for each input of others (Liu et al. 2022, arXiv:2205.05638)."""

    targets: list[str] = field(default_factory=lambda: ["key", "value", "down"])
    """Layers, as in lora.targets. Of down, the last of a feed-forward, inputs are multiplied, else outputs."""

    def __post_init__(self) -> None:
        _some(self.targets)


@dataclass(frozen=True, kw_only=True)
class BottleneckConfig:
    """A small network behind attention and feed-forward of each block (Houlsby et al. 2019, arXiv:1902.00751)."""

    width: int = 16
    """Of its hidden layer."""

    activation: Literal["gelu", "relu", "silu"] = "gelu"
    """Between its two layers."""

    both: bool = True
    """Behind attention and feed-forward. false: behind the feed-forward alone, nearly as good at half the size
    (Pfeiffer et al. 2021, arXiv:2005.00247)."""

    def __post_init__(self) -> None:
        at_least(self, 1, "width")


@dataclass(frozen=True, kw_only=True)
class PromptsConfig:
    """Tokens of no text that stand before every text and are learned."""

    tokens: int = 20
    """How many. They take as many places of the model's context, and of a row."""

    hidden: int | None = None
    """Hidden width of the network that makes them, and is left behind in the end. Left out: of p_tuning the model's
    width; prefix then has no network."""

    encoder: Literal["mlp", "lstm"] = "mlp"
    """Of p_tuning: that network. mlp: each token is made by itself. lstm: from those before and behind it, too (Liu et
    al. 2021, §3.2)."""

    def __post_init__(self) -> None:
        between(self, 1, 10_000, "tokens")
        between(self, 1, 2**16, "hidden")


def _some(targets: list[str]) -> None:
    if not targets:
        raise ConfigError("targets is empty: nothing would learn", 'Give such as [query, value], or ["*"] for all.')
