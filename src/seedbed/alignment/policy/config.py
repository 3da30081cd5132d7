"""How a policy learns from what it said: settings of `grpo` and `ppo`. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, cast

from seedbed.alignment.config import AlignmentOptimizerConfig
from seedbed.alignment.policy.choices import Baseline, Estimator, Level, Normaliser, Order, Scale
from seedbed.alignment.rewards.config import EpisodeShapingConfig, RewardModelsConfig, ShapingConfig
from seedbed.configuration import at_least, between, positive
from seedbed.errors import ConfigError
from seedbed.training.config import TrainConfig
from seedbed.tuning.config import TuningConfig

OPEN = cast(Any, None)
"""A setting that is left out: `resolve()` fills in what the loss says."""


@dataclass(frozen=True, kw_only=True)
class PolicyOptimizerConfig(AlignmentOptimizerConfig):
    """Which optimizer, and its rates: for a model of a billion parameters. A small one wants more, such as 0.0003 at a
    million."""

    default_rate: ClassVar[float] = 1e-6

    rate: float | None = None
    """Peak learning rate of everything under adamw; left out: 0.000001, for an adapter ten times as much. lion has a
    tenth of it, sgd a hundred times; muon has four rates instead, below."""


@dataclass(frozen=True, kw_only=True)
class WarningsConfig:
    """When a known pathology is told of. The means of the last ten records are compared with those of the first."""

    length: float = 2.0
    """Answers are so many times as long as at first: rewarded for length, not for being right."""

    entropy: float = 0.1
    """Entropy is this share of what it was at first, or less: nothing new is tried any more."""

    kl: float = 1.0
    """Nats a token from the reference; or, without one, from the policy that answered."""

    saturation: float = 0.9
    """Share of prompts whose answers are all worth the same: hardly anything is left to learn from."""

    def __post_init__(self) -> None:
        positive(self, "kl")
        at_least(self, 1, "length")
        between(self, 0, 1, "entropy", "saturation")


@dataclass(frozen=True, kw_only=True)
class PolicyConfig(TuningConfig):
    """What every stage is told that learns from a model's own answers."""

    typed: ClassVar[tuple[str, ...]] = ("own_rewards",)
    """Names of code, which no config file may bring along."""

    model: Path
    """Model folder (ours or one of transformers), run or checkpoint to begin with, which answers rightly now and
    then."""

    data: Path
    """Problems, .json, .jsonl, .csv, .tsv or .parquet, one file or those of a glob: rows of prompt (or question, or
    messages) with answer or reference, and reward: exact, numeric, regex or json_schema, how an answer is checked; or
    with tests, which a program is to pass. Where reward models alone tell what answers are worth, prompts suffice."""

    validation: Path | None = None
    """Problems to validate on, answered greedily. Left out: a share of the data is kept apart."""

    rewards: dict[str, float] = OPEN
    """What an answer is worth: rules with their weights, added up. check: the rule that the row names; exact, numeric,
    regex, json_schema, tests: that one for all rows; or the name of a function of own_rewards. An answer that is cut
    off is worth nothing by all rules. Left out: check, and beside reward_models.runs no rule."""

    own_rewards: Path | None = None
    """A Python file of yours, each public function(problem, answer) of which is a reward by its name, for rewards to
    name. It is run, with all that you may do, whenever you give it: on the command line alone, never in a config file,
    and again when a run goes on."""

    reward_models: RewardModelsConfig = field(default_factory=RewardModelsConfig)
    """Models whose scores are added to them."""

    shaping: ShapingConfig = field(default_factory=ShapingConfig)
    """What is done to the sum before it is learned from."""

    prompt_tokens: int | None = None
    """Longest prompt. Left out: what the model's context holds beside an answer."""

    overlong: Literal["error", "drop", "truncate"] = "error"
    """What happens to a prompt that is longer: it ends the run, is left out, or loses its beginning."""

    max_tokens: int = OPEN
    """Longest answer; a longer one is cut off. Left out: what the model's context holds beside the longest prompt, at
    least a quarter of it and at most 256."""

    temperature: float = 1.0
    """Of answers, and of the policy that learns: above 1 it tries more. The log-probabilities of a step are those at
    this temperature."""

    answers: int | None = None
    """Answers of a rollout, all prompts together, a multiple of train.batch. Left out: those of one step."""

    passes: int = OPEN
    """Over each rollout. With more than one, or with more answers than a step takes, most steps learn from what an
    earlier policy said. Left out: what the loss says."""

    kl: float = OPEN
    """What a nat of divergence from the model as it began costs. Above 0 a frozen copy of that model is kept. Left out:
    what the loss says."""

    engine_rows: int = 128
    """Answers that are made at once."""

    order: Order = "shuffled"
    """Of prompts. shuffled: each epoch in another order. given: that of the file, such as from easy to hard. learnable:
    of twice as many those whose answers had the most unequal rewards when they were last asked."""

    table: int = 8
    """Answers of a rollout that samples.jsonl shows, with their rewards and advantages; 0: none."""

    table_every: int = 10
    """Rollouts from one such table to the next."""

    warnings: WarningsConfig = field(default_factory=WarningsConfig)
    """When a known pathology is told of."""

    optimizer: PolicyOptimizerConfig = field(default_factory=PolicyOptimizerConfig)
    """Which optimizer, and its rates."""

    train: TrainConfig = field(default_factory=lambda: TrainConfig(batch=64, log_every=1))
    """Budget, batch (answers of a step), validation (whose loss is the mean reward, less than nought), checkpoints."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "temperature")
        at_least(self, 1, "prompt_tokens", "max_tokens", "answers", "passes", "engine_rows", "table_every")
        at_least(self, 0, "kl", "table")
        weights = self.rewards or {}
        if odd := [name for name, weight in weights.items() if not abs(weight) < 1e30]:  # of fp32; NaN too
            raise ConfigError(f"rewards.{odd[0]} must be a number, got {self.rewards[odd[0]]}")
        if self.max_tokens is not None:
            self.shaping.refuse(self.max_tokens)
        if self.train.batches:
            raise ConfigError("train.batches cannot change the batch here: a rollout is a whole number of steps")
        if self.train.parallel == "fsdp" or self.train.tensor_parallel > 1:
            raise ConfigError(
                "a policy answers with whole weights, which fsdp and tensor_parallel divide", "Take ddp or zero1."
            )
        batch = self.train.resolve().batch
        if self.answers is not None and self.answers % batch:
            raise ConfigError(f"answers must be a multiple of train.batch, {batch}, got {self.answers}")

    @property
    def rollout(self) -> int:
        """Answers of a rollout."""
        return self.answers or self.train.resolve().batch

    def resolve(self) -> Self:
        """With the rewards filled in where they are left out."""
        config, usual = super().resolve(), {} if self.reward_models.runs else {"check": 1.0}
        return config if self.rewards is not None else replace(config, rewards=usual)

    def unused(self) -> dict[str, str]:
        """What is for something that is not asked for."""
        return super().unused() | ({"table_every": "with table 0"} if self.table == 0 else {})


LOSSES: dict[str, dict[str, Any]] = {
    "grpo": {},
    "dr_grpo": {"scale": "none", "normaliser": "longest"},
    "dapo": {"normaliser": "token", "clip_high": 0.28, "attempts": 4},
    "rloo": {"baseline": "others", "scale": "none", "normaliser": "none"},
    "gspo": {"level": "sequence", "clip_low": 3e-4, "clip_high": 4e-4},
}
"""What each says differently from the first."""

USUAL: dict[str, Any] = {
    **{"baseline": "mean", "scale": "group", "normaliser": "answer", "level": "token"},
    **{"clip_low": 0.2, "clip_high": 0.2, "attempts": 1, "kl": 0.0, "passes": 1},
}
"""What the first says."""


@dataclass(frozen=True, kw_only=True)
class GrpoConfig(PolicyConfig):
    """Teaches a model from rewards of several answers to each prompt, without a critic: GRPO and its family."""

    loss: Literal["grpo", "dr_grpo", "dapo", "rloo", "gspo"] = "grpo"
    """grpo: Shao et al. 2024. dr_grpo: without its two biases (Liu et al. 2025). dapo: every token counts the same,
    more room upwards, prompts that teach nothing are replaced (Yu et al. 2025). rloo: what the other answers were worth
    is what is expected (Ahmadian et al. 2024). gspo: one ratio for a whole answer (Zheng et al. 2025). Each fills in
    the settings below that are left out."""

    group: int = 8
    """Answers to each prompt."""

    baseline: Baseline = OPEN
    """What is expected of an answer: the mean reward of its group, or that of the others in it (rloo)."""

    scale: Scale = OPEN
    """What advantages are divided by: the standard deviation of rewards in the group, in the whole rollout, or nothing
    (dr_grpo, rloo)."""

    normaliser: Normaliser = OPEN
    """What losses of tokens are divided by. answer: the length of their answer, then the number of answers. token: all
    tokens of the step (dapo). longest: max_tokens, then the answers (dr_grpo). none: the answers (rloo)."""

    level: Level = OPEN
    """Whether each token has its own ratio of new to old probability, or all of an answer their mean (gspo)."""

    clip_low: float = OPEN
    """How far below 1 a ratio may fall before a bad token teaches nothing more: 0.2, of gspo 0.0003."""

    clip_high: float = OPEN
    """How far above 1 it may rise before a good one does: 0.2, of dapo 0.28, of gspo 0.0004."""

    kl_estimator: Estimator = "k3"
    """How the divergence is estimated where kl is above 0. k2 and k3 stand in the loss, k3 times the ratio, without
    which its gradient is another divergence's; k1 is taken from the reward."""

    attempts: int = OPEN
    """How often other prompts are asked in place of those whose answers are all worth the same: 1, of dapo 4."""

    leave_out_cut: bool = False
    """Whether answers that were cut off are left out of the loss, rather than learned from like wrong ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        between(self, 2, 4096, "group")
        between(self, 1, 64, "attempts")
        positive(self, "clip_low", "clip_high")
        if self.clip_low is not None and self.clip_low >= 1:
            raise ConfigError(f"clip_low must be below 1, got {self.clip_low}")
        if self.rollout % self.group:
            raise ConfigError(
                f"{self.rollout} answers do not make groups of {self.group}",
                "Make train.batch, or answers, a multiple of group.",
            )

    def resolve(self) -> Self:
        """With what the loss says filled in where it is left out."""
        said = USUAL | LOSSES[self.loss]
        names = [spec.name for spec in fields(self) if spec.name in said and getattr(self, spec.name) is None]
        return replace(super().resolve(), **{name: said[name] for name in names})

    def unused(self) -> dict[str, str]:
        return super().unused() | ({"kl_estimator": "with kl 0"} if not self.kl else {})


@dataclass(frozen=True, kw_only=True)
class PpoConfig(PolicyConfig):
    """Teaches a model from rewards of its answers, with a critic that says what to expect of each token: PPO."""

    passes: int = 4
    """Over each rollout. With more than one, or with more answers than a step takes, most steps learn from what an
    earlier policy said."""

    kl: float = 0.05
    """What a nat of divergence from the model as it began takes from the reward, at first. Above 0 a frozen copy of
    that model is kept."""

    kl_target: float | None = None
    """Nats that an answer may be away: what a nat costs rises when answers are further than that, and falls when they
    are nearer (6 in Ziegler et al. 2019). Left out: it stays the same."""

    kl_horizon: int = 10_000
    """Answers over which that cost follows."""

    discount: float = 1.0
    """What a reward counts one token earlier."""

    decay: float = 0.95
    """λ of generalised advantages: 1 believes in what came, 0 in the critic."""

    whiten: bool = True
    """Whether the advantages of a rollout get mean 0 and variance 1 over its tokens."""

    clip: float = 0.2
    """How far the ratio of new to old probability may go from 1 and a token still teach."""

    value_clip: float | None = 0.2
    """How far a value may go from the old one and still learn. 0 or null: any way."""

    value_weight: float = 0.1
    """What the critic's error weighs beside the policy's loss; both share all blocks."""

    cut: Literal["goes_on", "ends"] = "goes_on"
    """What is expected after an answer that was cut off. goes_on: what the critic says. ends: nothing, as after one
    that the model ended."""

    shaping: EpisodeShapingConfig = field(default_factory=EpisodeShapingConfig)
    """What is done to the sum before it is learned from."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shaping.potential and not self.reward_models.runs:
            raise ConfigError(
                "shaping.potential is the score of reward models, and there is none", "Give --reward_models.runs."
            )
        positive(self, "kl_target", "discount", "clip")
        between(self, 0, 1, "discount", "decay")
        between(self, 0, 0.99, "clip")
        at_least(self, 0, "value_weight", "value_clip")
        at_least(self, 1, "kl_horizon")
        if self.kl_target is not None and not self.kl:
            raise ConfigError("kl_target is what kl follows, and kl is 0", "Give kl what a nat costs at first.")

    def unused(self) -> dict[str, str]:
        return super().unused() | ({"kl_horizon": "without kl_target"} if self.kl_target is None else {})
