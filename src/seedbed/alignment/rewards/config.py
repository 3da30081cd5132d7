"""What answers are worth to a policy beside rules: scores of reward models, and what is done to the sum. No torch
here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from seedbed.configuration import at_least, positive
from seedbed.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class RewardModelsConfig:
    """Models that score answers as people would, frozen."""

    runs: list[Path] = field(default_factory=list)
    """Runs of seedbed reward, or model folders, with the tokenizer and chat template of the policy. Several are asked
    together, as an ensemble."""

    weight: float = 1.0
    """What a score counts beside other rewards."""

    combine: Literal["mean", "least"] = "mean"
    """What several make together: the mean of their scores, or the least of them, with which all agree."""

    caution: float = 0.0
    """Of the mean: how many standard deviations between the models are taken off it. Where they disagree, none
    knows."""

    standardise: bool = False
    """Whether each score is told in standard deviations from the mean that the model's run had on its validation data,
    so that models of other units count alike."""

    cut_penalty: float = 1.0
    """What is taken off an answer that is cut off. It is scored as if it had ended there, at most nought: less than if
    it had, wherever scores lie, and never worth going on for."""

    def __post_init__(self) -> None:
        at_least(self, 0, "caution", "cut_penalty")

    def unused(self) -> dict[str, str]:
        """What is for more models, or for any."""
        if not self.runs:
            return dict.fromkeys(("weight", "combine", "caution", "standardise", "cut_penalty"), "without runs")
        if len(self.runs) == 1:
            return dict.fromkeys(("combine", "caution"), "with one run")
        return {"caution": "with combine least"} if self.combine == "least" else {}


@dataclass(frozen=True, kw_only=True)
class ShapingConfig:
    """What is done to the summed rewards of an answer before they are learned from: clip, then penalties, then
    whiten."""

    clip: float | None = None
    """No sum counts beyond ± this: no single answer decides a step. Left out: any."""

    length_buffer: int = 0
    """Tokens before max_tokens over which a penalty for length rises (DAPO). 0: there is none."""

    length_weight: float = 1.0
    """What that penalty rises to."""

    repetition_weight: float = 0.0
    """What an answer costs that says the same all the time; another costs the share of it that it has said before."""

    repetition_run: int = 4
    """Tokens in a row that are the same when they come again."""

    whiten: bool = False
    """Whether the sums of a rollout get variance 1 and mean 0."""

    shift: bool = True
    """Whether whitening moves the mean; otherwise it stays where it was."""

    def __post_init__(self) -> None:
        positive(self, "clip", "length_weight")
        at_least(self, 0, "length_buffer", "repetition_weight")
        at_least(self, 1, "repetition_run")

    def unused(self) -> dict[str, str]:
        """What is for a step that is not asked for."""
        told = {} if self.length_buffer else {"length_weight": "with length_buffer 0"}
        told |= {} if self.repetition_weight else {"repetition_run": "with repetition_weight 0"}
        return told | ({} if self.whiten else {"shift": "without whiten"})

    def refuse(self, max_tokens: int) -> None:
        """ConfigError for a penalty on all answers."""
        if self.length_buffer >= max_tokens:
            raise ConfigError(f"shaping.length_buffer must be less than max_tokens, {max_tokens}")


@dataclass(frozen=True, kw_only=True)
class EpisodeShapingConfig(ShapingConfig):
    """The same; and, since every token has a reward of its own, hints about how good what was said so far is."""

    potential: float = 0.0
    """Weight of the potential-based part (Ng, Harada & Russell 1999): each token has what it adds to the score of the
    reward models, read at every token. It changes how fast is learned, not which policy is the best."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "potential")
