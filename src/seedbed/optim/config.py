"""Which optimizer, which rates, and how they move over a run. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self, cast

from seedbed.configuration import at_least, between, positive
from seedbed.errors import ConfigError

DERIVED = cast(float, None)
"""A number that is left out: `resolve()` fills it in, so it is typed as what it then is."""

LIKE_MUON = ("muon", "normuon")
"""Optimizers that move matrices by Muon and the rest by AdamW."""

OF_MUON = (
    *("matrix_rate", "embedding_rate", "head_rate", "vector_rate", "adapter_rate"),
    *("newton_schulz_steps", "polynomial"),
)
"""Settings that they alone read."""

RATES = {"matrix_rate": 0.02, "embedding_rate": 0.05, "head_rate": 0.004, "vector_rate": 0.01, "weight_decay": 0.0}
"""Values of these where they are left out and no depth tells others."""

USUAL = {
    "muon": {"momentum": 0.95, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-10},
    "normuon": {"momentum": 0.95, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-10},
    "adamw": {"rate": 1.0, "momentum": 0.95, "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8},
    "lion": {"rate": 0.1, "beta1": 0.9, "beta2": 0.99},
    "adafactor": {"rate": 1.0},
    "sgd": {"rate": 100.0, "momentum": 0.9},
}
"""What each optimizer has, and its value where it is left out; of `rate` the multiple of AdamW's. adamw has no
momentum, but its runs had that setting when it could not be left out."""


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Parameters with a rate or a decay of their own."""

    of: str
    """embedding, head, matrix, vector or adapter; or the name of a parameter, in which * stands for anything:
    blocks.0.*, *.down.weight."""

    rate: float | None = None
    """Their peak learning rate. Left out: that of their kind."""

    weight_decay: float | None = None
    """Their decay. Left out: that of their kind."""

    def __post_init__(self) -> None:
        positive(self, "rate")
        at_least(self, 0, "weight_decay")
        if self.rate is None and self.weight_decay is None:
            raise ConfigError(f"of {self.of}: neither rate nor weight_decay is given")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Which optimizer, and its rates."""

    default_rate: ClassVar[float] = 1e-3
    """`rate` of AdamW where it is left out."""
    adapter_multiple: ClassVar[float] = 1.0
    """What an adapter has of a rate that is left out."""

    name: Literal["muon", "normuon", "adamw", "lion", "adafactor", "sgd"] = "muon"
    """muon orthogonalises the update of every matrix (Jordan 2024), AdamW moves the rest. normuon: so too, with rows of
    even size (Li et al. 2025). adamw, lion, adafactor, sgd: that one for all."""

    rate: float | None = None
    """Peak learning rate of everything under adamw; left out: 0.001. muon has four rates instead, below. Others: left
    out, lion has a tenth of adamw's, adafactor the same, sgd a hundred times."""

    matrix_rate: float = DERIVED
    """Peak learning rate of the matrices inside the blocks under Muon: the same value serves all sizes. Left out: 0.02,
    or, like the other rates and weight_decay, what --model.depth makes of it."""

    embedding_rate: float = DERIVED
    """Peak learning rate of all that is looked up (tokens, learned positions, values) under muon, where AdamW moves it.
    Left out: 0.05."""

    head_rate: float = DERIVED
    """Peak learning rate of an untied output head, and of the routers of experts, under muon, where AdamW moves them.
    Left out: 0.004."""

    vector_rate: float = DERIVED
    """Peak learning rate of norm weights, biases and other vectors under muon, where AdamW moves them. Left out:
    0.01."""

    adapter_rate: float = 0.001
    """Peak learning rate of an adapter (LoRA and the like) under muon, where AdamW moves it."""

    groups: list[ParameterGroup] = field(default_factory=list)
    """Parameters with a rate or decay of their own, under any optimizer: {of: embedding, rate: 0.003} or {of: "*skip*",
    weight_decay: 0.1}. Where several fit, the last counts."""

    layer_decay: float = 1.0
    """Rates fall towards the first layers: those of the last block are multiplied by layer_decay once, of each block
    below once more, of the embedding once more than the first block's (Clark et al. 2020). For fine-tuning: 0.8 to
    0.95."""

    weight_decay: float = DERIVED
    """Decoupled decay of matrices; embeddings, norms, biases and other vectors have none. Left out: 0."""

    cautious_decay: bool = False
    """Decay only weights that the update makes smaller too (Chen et al. 2025). Not under adamw; under muon: the
    matrices."""

    momentum: float = DERIVED
    """Momentum of Muon and sgd. Left out: 0.95 and 0.9."""

    beta1: float = DERIVED
    """First AdamW moment's memory. Left out: 0.8, which suits Muon's pace, under muon; 0.9 under adamw and lion."""

    beta2: float = DERIVED
    """Second AdamW moment's memory, of normuon also that of the size of rows. Left out: 0.95; 0.99 under lion, where it
    is the memory of the momentum."""

    epsilon: float = DERIVED
    """Added to AdamW's denominator. Left out: 1e-10 under muon, 1e-8 under adamw."""

    newton_schulz_steps: int = 5
    """Steps of Muon's orthogonalisation; fewer are cheaper and less exact."""

    polynomial: Literal["jordan", "polar_express"] = "jordan"
    """Of these steps. jordan: one for all. polar_express: the best for each (Amsel et al. 2025), of which 4 do what 5
    of jordan do."""

    relative_step: bool = False
    """Of adafactor: the rate is a share of each parameter's own size (Shazeer & Stern 2018, §8), not a step of its own;
    a usual one is then 0.01."""

    def __post_init__(self) -> None:
        positive(self, "rate", "matrix_rate", "embedding_rate", "head_rate", "vector_rate", "adapter_rate", "epsilon")
        at_least(self, 0, "weight_decay")
        at_least(self, 1, "newton_schulz_steps")
        between(self, 0, 0.9999, "momentum", "beta1", "beta2")
        between(self, 0.01, 1, "layer_decay")
        if self.name in LIKE_MUON and self.rate is not None:
            raise ConfigError(
                f"rate is {self.rate}, but {self.name} does not use it",
                "Set matrix_rate, embedding_rate, head_rate and vector_rate, for an adapter adapter_rate, or take "
                "--optimizer.name adamw.",
            )
        if self.cautious_decay and self.name == "adamw":
            raise ConfigError("cautious_decay cannot stand beside the name adamw, whose update is torch's own")
        if self.relative_step and self.name != "adafactor":
            raise ConfigError(f"relative_step is for the name adafactor, not {self.name}")

    def unused(self) -> dict[str, str]:
        """Settings that this optimizer does not read, and may have from a preset."""
        taken = USUAL[self.name]
        takes = " and ".join(key for key in taken if key != "rate") or "none of its kind"
        others = [key for key in ("momentum", "beta1", "beta2", "epsilon") if key not in taken]
        told = dict.fromkeys(others, f"under {self.name}, which has {takes}")
        if self.name not in LIKE_MUON:
            told |= dict.fromkeys(OF_MUON, f"under {self.name}, it is for muon and normuon")
        return told

    def resolve(self) -> Self:
        """With every number filled in that is left out and that the optimizer has."""
        usual: dict[str, Any] = RATES | {
            key: value * self.default_rate if key == "rate" else value for key, value in USUAL[self.name].items()
        }
        return replace(self, **{key: value for key, value in usual.items() if getattr(self, key) is None})

    def for_adapter(self) -> Self:
        """`resolve` where an adapter learns."""
        usual = self.resolve()
        if self.rate is not None or usual.rate is None:
            return usual
        return replace(
            usual, rate=float(f"{usual.rate * self.adapter_multiple:.12g}")
        )  # 1e-05, not 9.999999999999999e-06


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How every learning rate moves over the run, as a multiple of its peak."""

    name: Literal["warmup_stable_decay", "cosine", "linear", "polynomial", "inverse_sqrt", "one_cycle", "constant"] = (
        "warmup_stable_decay"
    )
    """warmup_stable_decay holds the peak, then falls. cosine, linear and polynomial fall all the way, along half a
    cosine, a line or a power. inverse_sqrt falls as 1/√step. one_cycle rises slowly, then falls. constant stays."""

    warmup: float = DERIVED
    """Share of the steps over which the rate rises, from zero in a line; that of one_cycle from `begin` along half a
    cosine. Left out: 0.02, and 0.3 for one_cycle."""

    decay: float = 0.4
    """Share of the steps at the end over which warmup_stable_decay falls."""

    final: float = 0.02
    """Share of the peak that the rates fall to: 0.02 is a fiftieth of it. The last step takes a little more, since the
    fall ends after it, and so a schedule that falls to 0 has no step without effect. Not of inverse_sqrt."""

    fall: Literal["linear", "sqrt"] = "linear"
    """How warmup_stable_decay falls: in a line, or as 1 − √x, soon and then ever slower (Hägele et al. 2024)."""

    power: float = 2.0
    """Of polynomial: 1 is linear, 2 leaves more of the steps to small rates."""

    begin: float = 0.04
    """Share of the peak at which one_cycle begins."""

    def __post_init__(self) -> None:
        between(self, 0, 1, "warmup", "decay", "final", "begin")
        positive(self, "power")
        for key, name in (("fall", "warmup_stable_decay"), ("power", "polynomial"), ("begin", "one_cycle")):
            if getattr(self, key) != type(self).__dataclass_fields__[key].default and self.name != name:
                raise ConfigError(f"{key} is for the name {name}, not {self.name}")
        together = self.resolve().warmup + self.decay
        if self.name == "warmup_stable_decay" and together > 1 + 1e-9:  # 0.7 + 0.3 may round to more than 1
            raise ConfigError(f"warmup and decay together must not exceed the run, 1; they take {together:g}")

    def unused(self) -> dict[str, str]:
        """Settings that this schedule does not read, and may have from a preset."""
        found = {}
        if self.name != "warmup_stable_decay":
            found["decay"] = f"under {self.name}, it is for warmup_stable_decay"
        if self.name in ("inverse_sqrt", "constant"):
            found["final"] = f"under {self.name}, which does not fall to a share"
        return found

    def resolve(self) -> Self:
        """With the warmup filled in where it is left out."""
        return self if self.warmup is not None else replace(self, warmup=0.3 if self.name == "one_cycle" else 0.02)
