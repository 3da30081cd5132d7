"""How a reward model learns: settings of `reward`. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from seedbed.alignment.config import AlignmentOptimizerConfig, AnswersConfig
from seedbed.configuration import at_least


@dataclass(frozen=True, kw_only=True)
class RewardOptimizerConfig(AlignmentOptimizerConfig):
    """Which optimizer, and its rates: those of a model of a billion parameters. One of a few million wants a hundred
    times as much."""

    default_rate: ClassVar[float] = 1e-5

    rate: float | None = None
    """Peak learning rate of everything under adamw; left out: 0.00001, for an adapter ten times as much. lion has a
    tenth of it, sgd a hundred times; muon has four rates instead, below."""


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
