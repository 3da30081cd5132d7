"""How a model learns from preferences: settings of `dpo`, `kto` and `reward`. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal, Self, cast

from seedbed.configuration import at_least, between, positive
from seedbed.errors import ConfigError
from seedbed.optim.config import OptimizerConfig
from seedbed.tuning.config import TuningConfig

DERIVED = cast(float, None)
"""A number that is left out: `resolve()` fills it in."""

BETAS = {"simpo": 2.0}
"""Of losses whose β is not DPO's."""


@dataclass(frozen=True, kw_only=True)
class DirectOptimizerConfig(OptimizerConfig):
    """Which optimizer, and its rates: those of a model of a billion parameters that shall hardly change. One of a few
    million learns little at them; docs/alignment.md tells which ones such models want."""

    default_rate: ClassVar[float] = 5e-7

    name: Literal["muon", "normuon", "adamw", "lion", "adafactor", "sgd"] = "adamw"
    """adamw, lion, adafactor, sgd: that one for all. muon orthogonalises the update of every matrix, AdamW moves the
    rest; normuon: so too, with rows of even size."""

    rate: float | None = None
    """Peak learning rate of everything under adamw; left out: 0.0000005. lion has a tenth of it, sgd a hundred times;
    muon has four rates instead, below."""

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


@dataclass(frozen=True, kw_only=True)
class DirectConfig(AnswersConfig):
    """Teaches a model which of two answers is better, without a reward model: DPO and its relatives."""

    data: Path
    """Preferences, .json, .jsonl, .csv, .tsv or .parquet, one file or those of a glob: rows of prompt (or instruction
    with input), chosen and rejected, or of two whole conversations."""

    loss: Literal["sigmoid", "ipo", "hinge", "robust", "conservative", "simpo", "orpo"] = "sigmoid"
    """sigmoid: DPO itself. ipo: a margin of 1/(2β) is enough. hinge: beyond a margin nothing more is learned. robust,
    conservative: some preferences are the wrong way round. simpo, orpo: without a reference."""

    beta: float = DERIVED
    """How dear it is to leave the reference: the smaller, the further the model goes. For orpo, the weight of the odds
    ratio beside the likelihood. Left out: 0.1, for simpo 2."""

    likelihood: float = 0.0
    """How much of the better answer's negative log-likelihood, divided by its tokens, is added: the model then does not
    make both answers rarer, as plain DPO may (Pang et al. 2024, arXiv:2404.19733, eq. 1; they take 1). Not for orpo,
    which has it anyway."""

    flipped: float = 0.1
    """Of robust and conservative: share of the preferences that are thought to be the wrong way round."""

    target_margin: float = 1.0
    """Of simpo: by how much the better answer is to win, in the same units as β times a mean log-probability."""

    judge: Literal["margin", "accuracy", "loss"] = "margin"
    """What of the validation data says which step is the best, for --train.patience and --train.select best: the mean
    margin between the rewards of both answers, how often it is above nought, or the loss."""

    optimizer: DirectOptimizerConfig = field(default_factory=DirectOptimizerConfig)
    """Which optimizer, and its rates."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "beta")
        between(self, 0, 0.49, "flipped")
        at_least(self, 0, "target_margin", "likelihood")

    def unused(self) -> dict[str, str]:
        """What is for another loss."""
        owners = {"flipped": ("robust", "conservative"), "target_margin": ("simpo",)}
        told = {
            key: f"under {self.loss}, it is for {' and '.join(losses)}"
            for key, losses in owners.items()
            if self.loss not in losses
        }
        if self.loss == "orpo":
            told["likelihood"] = "under orpo, which has it anyway"
        return super().unused() | told

    def resolve(self) -> Self:
        """With β filled in where it is left out."""
        config = super().resolve()
        return config if self.beta is not None else replace(config, beta=BETAS.get(self.loss, 0.1))


@dataclass(frozen=True, kw_only=True)
class KtoConfig(AnswersConfig):
    """Teaches a model from answers that are each judged alone, wanted or not (KTO)."""

    data: Path
    """Judgements, .json, .jsonl, .csv, .tsv or .parquet, one file or those of a glob: rows of prompt (or question),
    completion (or response) and label (true: wanted), or of messages and label."""

    beta: float = 0.1
    """How dear it is to leave the reference: the smaller, the further the model goes."""

    wanted_weight: float = 1.0
    """What a wanted answer weighs. Weights times numbers of answers should be about even between both kinds, those of
    the wanted at most a third more (§4.2 of the paper)."""

    unwanted_weight: float = 1.0
    """What an unwanted answer weighs."""

    group: int = 4
    """Judgements that share one estimate of how far the model has gone from the reference, each adding its prompt with
    another's answer to it. --train.batch counts such groups."""

    judge: Literal["margin", "loss"] = "margin"
    """What of the validation data says which step is the best, for --train.patience and --train.select best: by how
    much the mean reward of wanted answers exceeds that of others, or the loss."""

    optimizer: DirectOptimizerConfig = field(default_factory=DirectOptimizerConfig)
    """Which optimizer, and its rates."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "beta", "wanted_weight", "unwanted_weight")
        between(self, 2, 4096, "group")


@dataclass(frozen=True, kw_only=True)
class RewardOptimizerConfig(DirectOptimizerConfig):
    """Which optimizer, and its rates: those of a model of a billion parameters. One of a few million wants a hundred
    times as much."""

    default_rate: ClassVar[float] = 1e-5

    rate: float | None = None
    """Peak learning rate of everything under adamw; left out: 0.00001. lion has a tenth of it, sgd a hundred times;
    muon has four rates instead, below."""


@dataclass(frozen=True, kw_only=True)
class RewardConfig(AnswersConfig):
    """Teaches a model to score answers as people would, from preferences: a reward model."""

    data: Path
    """Preferences as in `seedbed dpo`, with margin where rows tell by how much an answer is better. For --loss process:
    .jsonl of prompt, steps and labels, one label (true: right) a step."""

    loss: Literal["bradley_terry", "ranking", "process"] = "bradley_terry"
    """bradley_terry: the probability that the better answer wins. ranking: it is to win by a margin, and beyond it
    nothing more is learned. process: each step of an answer is right or wrong."""

    margin: float = 1.0
    """Of ranking: that margin, for rows that tell none."""

    use_margins: bool = True
    """Of bradley_terry: whether the better answer is to win by the margin that its row tells, if it tells one."""

    centring: float = 0.01
    """How much of (r_chosen + r_rejected)² is added, so that scores stay around nought; 0: none."""

    optimizer: RewardOptimizerConfig = field(default_factory=RewardOptimizerConfig)
    """Which optimizer, and its rates."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "margin", "centring")

    def unused(self) -> dict[str, str]:
        """What is for another loss."""
        owners = {"margin": "ranking", "use_margins": "bradley_terry"}
        told = {key: f"under {self.loss}, it is for {loss}" for key, loss in owners.items() if self.loss != loss}
        if self.loss == "process":
            told["centring"] = "under process, whose scores stand alone"
        return super().unused() | told
