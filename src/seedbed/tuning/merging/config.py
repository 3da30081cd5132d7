"""How models are merged. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from seedbed.configuration import at_least, between, positive
from seedbed.errors import ConfigError

Method = Literal[
    "linear", "slerp", "task_arithmetic", "ties", "dare", "dare_ties", "breadcrumbs", "model_stock", "stack"
]


@dataclass(frozen=True)
class OfChanges:
    """A method that adds up, with weights, what each model has learned since the base that all began with."""

    keeps: Literal["all", "largest", "random", "middle"] = "all"
    """Which part of a change is merged."""
    density: float = 1.0
    """The size of that part, when it is not given."""
    votes: bool = False
    """Whether of each number those changes count whose sign wins."""
    normalizes: bool = False
    """Whether the sum is divided by the weights, when that is not said."""


OF_CHANGES = {
    "task_arithmetic": OfChanges(),
    "ties": OfChanges("largest", 0.2, votes=True, normalizes=True),
    "dare": OfChanges("random", 0.5),
    "dare_ties": OfChanges("random", 0.5, votes=True),
    "breadcrumbs": OfChanges("middle", 0.9),
}
ON_A_BASE = (*OF_CHANGES, "model_stock")
UNWEIGHTED = ("slerp", "model_stock", "stack")


@dataclass(frozen=True, kw_only=True)
class EvolveConfig:
    """Weights found by trying: CMA-ES (Hansen 2016, arXiv:1604.00772), as of Akiba et al. 2024, arXiv:2403.13187."""

    tokens: Path | None = None
    """Tokens folder; the loss on its validation part, next token by next token, is what falls. Left out: the weights
    are taken as they are given."""

    trials: int = 60
    """Merges that are measured, the first with the weights as given. The best of all is taken."""

    spread: float = 0.3
    """Of the first trials around the weights given."""

    rows: int = 32
    """Windows of the text that each trial is measured on, spread over all of it."""

    seed: int = 0
    """Of what is tried."""

    def __post_init__(self) -> None:
        at_least(self, 1, "trials", "rows")
        at_least(self, 0, "seed")
        positive(self, "spread")

    def unused(self) -> dict[str, str]:
        """All of it where nothing is measured."""
        return dict.fromkeys(("trials", "spread", "rows", "seed"), "without tokens") if self.tokens is None else {}


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """Makes one model of several of the same architecture and tokenizer, without training."""

    models: list[Path]
    """Model folders, runs or checkpoints: [runs/a, runs/b]."""

    out: Path
    """Model folder to write."""

    method: Method = "linear"
    """linear: weighted mean (Wortsman et al. 2022). slerp: along the sphere between two (Shoemake 1985). On a base, by
    what each has learned since: task_arithmetic, added (Ilharco et al. 2022); ties, the largest changes whose sign wins
    (Yadav et al. 2023); dare, a random part, made larger (Yu et al. 2023), dare_ties, and then its signs as in ties;
    breadcrumbs, without the smallest and the largest changes (Davari & Belilovsky 2023); model_stock, as far from the
    base as the changes agree (Jang et al. 2024). stack: layers of several, one after the other."""

    base: Path | None = None
    """The model that all began with, for the methods that need it."""

    weights: list[float] | None = None
    """Of each model. Left out: 1 each."""

    normalize: bool | None = None
    """Whether weights are divided by their sum; under ties and dare_ties, number by number, by the sum of those whose
    sign won. Left out: for linear and ties they are."""

    density: float | None = None
    """Share of the changes that is kept, of each matrix. Left out: ties 0.2, dare and dare_ties 0.5, breadcrumbs
    0.9."""

    outliers: float = 0.01
    """Share of the largest changes that breadcrumbs leaves out."""

    scale: float = 1.0
    """What the merged changes are multiplied with (λ) before they are added to the base."""

    t: float = 0.5
    """How far slerp goes from the first model to the second."""

    layers: list[str] = field(default_factory=list)
    """What stack takes, in this order: NUMBER:FIRST-END, the model by its place in `models` from 0 on, and its layers
    from FIRST to before END: ["0:0-8", "1:4-12"]. Embeddings come from the model that is named first, the last norm
    and the head from the one that is named last."""

    arithmetic: Literal["fp32", "fp64"] = "fp32"
    """Numbers to merge in. The result is stored in those of the base, or of the first model where there is none."""

    seed: int = 0
    """Of what dare keeps."""

    evolve: EvolveConfig = field(default_factory=EvolveConfig)
    """Weights found by trying."""

    def __post_init__(self) -> None:
        between(self, 0, 1, "outliers", "t")
        at_least(self, 0, "seed")
        positive(self, "density")
        between(self, 0, 1, "density")
        if self.base is None and self.method in ON_A_BASE:
            raise ConfigError(f"method {self.method} needs the model that all began with", "Give --base MODEL.")
        if self.of_changes.keeps == "middle" and self.kept + self.outliers > 1:
            raise ConfigError(f"density {self.kept} and outliers {self.outliers} are more than all changes")
        if (self.method == "stack") != bool(self.layers):
            raise ConfigError(
                "layers and method stack go together", 'Such as --method stack --layers ["0:0-8", "1:4-12"].'
            )
        if self.method == "slerp" and len(self.models) != 2:
            raise ConfigError(f"slerp is between two models, got {len(self.models)}")
        if self.method == "model_stock" and len(self.models) < 2:
            raise ConfigError("model_stock needs at least two models")
        if not self.models:
            raise ConfigError("models names none")
        if self.weights is not None and len(self.weights) != len(self.models):
            raise ConfigError(f"there are {len(self.models)} models, but {len(self.weights)} weights")
        if self.evolve.tokens is not None and (self.method in UNWEIGHTED or len(self.models) < 2):
            raise ConfigError("evolve looks for the weights of two models or more, by a method that has weights")

    @property
    def of_changes(self) -> OfChanges:
        """What the method does with changes, if it is one of those."""
        return OF_CHANGES.get(self.method, OfChanges())

    @property
    def kept(self) -> float:
        """The density, given or not."""
        return self.of_changes.density if self.density is None else self.density

    @property
    def normalized(self) -> bool:
        """Whether weights are divided by their sum."""
        if self.normalize is not None:
            return self.normalize
        return self.method == "linear" or self.of_changes.normalizes

    def unused(self) -> dict[str, str]:
        """Options of other methods."""
        keeps = self.of_changes.keeps
        used = {
            "density": keeps != "all",
            "outliers": keeps == "middle",
            "seed": keeps == "random",
            "scale": self.method in OF_CHANGES,
            "base": self.method in ON_A_BASE,
            "t": self.method == "slerp",
            "weights": self.method not in UNWEIGHTED,
            "normalize": self.method not in UNWEIGHTED,
        }
        unused = {name: f"with method {self.method}" for name, is_used in used.items() if not is_used}
        if self.method == "stack":
            unused["arithmetic"] = "with method stack, which leaves every number as it is"
        return unused
