"""How a model learns from preferences and judgements themselves: settings of `dpo` and `kto`. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self, cast

from seedbed.alignment.config import AlignmentOptimizerConfig, AnswersConfig
from seedbed.configuration import at_least, between, positive

DERIVED = cast(float, None)
"""A number that is left out: `resolve()` fills it in."""

BETAS = {"simpo": 2.0}
"""Of losses whose β is not DPO's."""


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

    optimizer: AlignmentOptimizerConfig = field(default_factory=AlignmentOptimizerConfig)
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

    optimizer: AlignmentOptimizerConfig = field(default_factory=AlignmentOptimizerConfig)
    """Which optimizer, and its rates."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "beta", "wanted_weight", "unwanted_weight")
        between(self, 2, 4096, "group")
