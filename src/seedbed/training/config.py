"""How a run goes: budget, batch, validation, checkpoints. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

from seedbed.configuration import at_least, between, positive
from seedbed.data.batches.config import TrainingDataConfig
from seedbed.errors import ConfigError
from seedbed.model.config import DERIVED, ModelConfig
from seedbed.optim.config import OptimizerConfig, ScheduleConfig
from seedbed.training.batch_schedule import BatchSchedule
from seedbed.training.observers.config import (
    AlertsConfig,
    LogConfig,
    ProbesConfig,
    ProfileConfig,
    SamplesConfig,
    StatisticsConfig,
    TrackerName,
)

LONGEST = 10**12
"""Of any budget: a million times what a person waits for, and far from where counting in floats ends."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the whole state is written, and how much is kept. A run also saves when it is stopped and at its end; with
    none of steps, epochs and on_improvement it saves at every validation."""

    steps: int | None = None
    """Save every so many steps. Left out, like the two below: at every validation."""

    epochs: float | None = None
    """Save every so many passes over the training data."""

    on_improvement: bool = False
    """Save whenever the validation loss is the lowest so far."""

    background: bool = True
    """Write while training goes on, from a copy of the state: training waits only for the copying. false needs no
    memory for the copy."""

    keep: int = 2
    """How many of the newest stay on disk; the best one stays besides. Older ones are removed at each save."""

    def __post_init__(self) -> None:
        at_least(self, 1, "steps", "keep")
        positive(self, "epochs")
        between(self, 0, LONGEST, "epochs")


@dataclass(frozen=True, kw_only=True)
class BatchPhase:
    """From a step on, another batch."""

    from_step: int
    """The first step of the phase, above 0."""

    batch: int
    """Rows of each of its steps."""

    def __post_init__(self) -> None:
        between(self, 1, LONGEST, "from_step")
        between(self, 1, 2**31, "batch")


@dataclass(frozen=True, kw_only=True)
class AverageConfig:
    """The mean of the weights of all steps, which becomes the model with --train.select average."""

    decay: float = 0.99
    """What a step weighs beside the next one: 0.99 averages about the last hundred steps. 1: all weigh the same."""

    after: float = 0.0
    """Share of the steps after which the mean begins; with decay 1, 0.8 takes the mean of the last fifth."""

    def __post_init__(self) -> None:
        between(self, 0, 1, "decay")
        between(self, 0, 0.999, "after")


@dataclass(frozen=True, kw_only=True)
class RollbackConfig:
    """Going back to the last checkpoint when the loss spikes, and past the batches that it spiked on."""

    spike: float | None = None
    """A loss this many times the median of the last 50 steps is a spike, such as 2. Then, and when
    train.nonfinite_limit is reached, the run goes back. Left out: never."""

    skip: int = 200
    """Batches after the checkpoint that are left out; more when the spike came later than that."""

    most: int = 3
    """How often a run goes back. In trouble once more, it ends with an error."""

    def __post_init__(self) -> None:
        positive(self, "spike")
        at_least(self, 1, "spike", "skip", "most")
        between(self, 1, 10**9, "skip")

    def unused(self) -> dict[str, str]:
        """What is for a run that never goes back."""
        return dict.fromkeys(("skip", "most"), "without spike") if self.spike is None else {}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The budget of a run and how it is spent. Give one of steps, epochs and minutes, or in pretrain horizon."""

    steps: int | None = None
    """Optimizer steps."""

    epochs: float | None = None
    """Passes over the training data."""

    minutes: float | None = None
    """Time for all of it, from reading the data to saving the model. What fits in is measured first, then written into
    the run's config as a number of steps."""

    horizon: float | None = None
    """Tokens to learn from for each parameter that they are multiplied with, those of blocks and head: the budget where
    none of steps, epochs and minutes is given. About 20 are compute-optimal. Left out: 20 under model.depth."""

    batch: int = DERIVED
    """Rows of an optimizer step. Left out: 16, or what model.depth makes of it."""

    batches: list[BatchPhase] = field(default_factory=list)
    """Other batches from later steps on, such as {from_step: 1000, batch: 32}. Rates do not change with them."""

    micro_batch: int | None = None
    """Rows that pass through the model at once, in validations too; the rest accumulates. Left out: the whole batch.
    Loss and gradients do not depend on it."""

    clip: float | None = 1.0
    """Largest norm of the gradient; a longer one is scaled down to it. 0 or null: gradients are taken as they come."""

    seed: int = 0
    """Of the first weights and of the order of the data."""

    device: Literal["auto", "cuda", "mps", "xpu", "cpu"] = "auto"
    """auto: CUDA or ROCm, else MPS, else XPU, else CPU."""

    attention: Literal["auto", "reference", "sdpa", "flex", "flash"] = "auto"
    """How attention is computed: auto by device and mask. What cannot be had here is said, and sdpa is taken. Moves
    weights by rounding alone; docs/attention.md tells the ways apart."""

    devices: int = 1
    """Processes that this command starts, each with a GPU of this machine or its share of the CPU's cores. Under
    torchrun, which starts them itself, it is left out."""

    parallel: Literal["auto", "ddp", "zero1", "fsdp"] = "auto"
    """How several processes divide the work; each takes a share of the rows. ddp: each has the whole model. zero1:
    also, but divides the optimizer's state and work. fsdp: each has a piece of every weight, for models that do not fit
    on one device. auto: ddp. Loss and weights are the same, up to rounding."""

    shard_group: int | None = None
    """Under fsdp, so many processes share one copy of the model, such as those of a machine, and the groups are
    replicas (hybrid sharding). Left out: all processes share one."""

    tensor_parallel: int = 1
    """So many processes divide the heads and the inner width of each layer, and work on the same rows."""

    deterministic: bool = True
    """Only algorithms that give the same bits every time. false trades that for speed on some devices."""

    precision: Literal["auto", "fp32", "bf16", "fp16", "fp8", "int8"] = "auto"
    """What matrix products compute in; weights and optimizer stay in fp32. auto: bf16 on CUDA that has it, else
    fp32. fp16 scales its loss; fp8 needs an Ada or Hopper GPU; int8, for large products, a CPU and a C++ compiler."""

    recompute: Literal["none", "full", "selective"] = "none"
    """What the backward pass computes a second time instead of keeping it. selective: all but matrix products and
    attention; it saves nothing where norms and gates are made again anyway, as in the default family. full: whole
    blocks, a third slower and smallest. The weights come out the same, to the bit."""

    compile: Literal["auto", "on", "off"] = "auto"
    """Whether blocks are compiled. auto: when the run is long enough to win back the time that this takes; what was
    chosen stands in the run's config."""

    log_every: int = 10
    """Steps between two lines of metrics."""

    validate_every: int | None = None
    """Steps between two validations. Left out: twenty in a run or, under minutes, so few that they take a tenth of the
    time."""

    validation_rows: int = 256
    """Rows of the validation data that are used: a fixed sample, the same in every run."""

    patience: int | None = None
    """Stop after so many validations in a row without a lower loss. Left out: never."""

    select: Literal["last", "best", "average"] = "last"
    """Which weights become the model: those of the last step, those of the lowest validation loss, or the mean of the
    steps; then it is this mean that is validated."""

    average: AverageConfig = field(default_factory=AverageConfig)
    """That mean."""

    nonfinite_limit: int = 5
    """A step whose gradient is not finite is left out; so many in a row end the run with an error."""

    rollback: RollbackConfig = field(default_factory=RollbackConfig)
    """What happens when the loss spikes."""

    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """When to save."""

    def __post_init__(self) -> None:
        at_least(self, 1, "steps", "batch", "micro_batch", "log_every", "validate_every", "validation_rows", "patience")
        at_least(self, 1, "nonfinite_limit", "devices", "shard_group", "tensor_parallel")
        between(self, 0, 2**63 - 1, "seed")
        between(self, 1, 2**31, "batch", "micro_batch")
        between(self, 1, LONGEST, "steps")
        if self.shard_group is not None and self.parallel != "fsdp":
            raise ConfigError("shard_group divides processes under fsdp", "Give --train.parallel fsdp.")
        if self.parallel == "zero1" and self.tensor_parallel > 1:
            raise ConfigError("zero1 divides whole weights, tensor_parallel has none", "Take --train.parallel fsdp.")
        if self.precision == "int8" and self.tensor_parallel > 1:
            raise ConfigError("int8 products need whole weights, tensor_parallel has none", "Take one of the two.")
        positive(self, "epochs", "minutes", "horizon")
        at_least(self, 0, "clip")
        between(self, 0, LONGEST, "epochs", "minutes", "horizon")
        firsts = [phase.from_step for phase in self.batches]
        if sorted(set(firsts)) != firsts:
            raise ConfigError(f"batches must follow one another, got from_step {', '.join(map(str, firsts))}")
        if self.select != "average" and self.average != AverageConfig():
            raise ConfigError(f"average is for select average, not {self.select}")
        if self.epochs is not None and self.minutes is not None:
            raise ConfigError("give one of steps, epochs and minutes, got epochs and minutes")

    def resolve(self) -> Self:
        """With the batch filled in where it is left out."""
        return self if self.batch is not None else replace(self, batch=16)

    @property
    def batch_schedule(self) -> BatchSchedule:
        """Rows of each step."""
        return BatchSchedule([(0, self.batch), *((phase.from_step, phase.batch) for phase in self.batches)])

    @property
    def budgets(self) -> list[str]:
        """Which of the three are set. The config of a run holds steps beside what they were counted from."""
        return [name for name in ("steps", "epochs", "minutes") if getattr(self, name) is not None]


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """What every training stage is told."""

    out: Path
    """Folder of the run."""

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Which optimizer, and its rates."""

    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """How the rates move over the run."""

    train: TrainConfig = field(default_factory=TrainConfig)
    """Budget, batch, validation, checkpoints."""

    track: list[TrackerName] = field(default_factory=list)
    """Tools that are told of the run besides its own files. Addresses and keys are those of each tool's own variables
    (WANDB_API_KEY, MLFLOW_TRACKING_URI, …) and are written nowhere."""

    log: LogConfig = field(default_factory=LogConfig)
    """How training.log is written."""

    statistics: StatisticsConfig = field(default_factory=StatisticsConfig)
    """What the inside of the model looks like."""

    samples: SamplesConfig = field(default_factory=SamplesConfig)
    """Texts that the model writes while it learns."""

    probes: ProbesConfig = field(default_factory=ProbesConfig)
    """Functions of your own that measure the model while it learns."""

    alerts: AlertsConfig = field(default_factory=AlertsConfig)
    """When the run calls for a person."""

    profile: ProfileConfig = field(default_factory=ProfileConfig)
    """Where the time of a few steps goes."""

    resume: str = "auto"
    """auto: go on from the newest complete checkpoint, if there is one. never: refuse a folder that holds a run.
    Otherwise the checkpoint to go on from."""

    def resolve(self) -> Self:
        """With the numbers filled in that may be left out: whether they are makes no difference."""
        return replace(
            self,
            optimizer=self.optimizer.resolve(),
            schedule=self.schedule.resolve(),
            train=self.train.resolve(),
        )


@dataclass(frozen=True, kw_only=True)
class ConsolidationConfig:
    """Elastic weight consolidation: weights that an old text depends on move less while a new one is learned."""

    tokens: Path | None = None
    """Tokens folder of the old text, or of some of it, made with the model's tokenizer. Left out: nothing is held."""

    strength: float = 1.0
    """How many tokens of the old text weigh as much as one of the new: more holds firmer."""

    rows: int = 256
    """Rows of the old text that tell what it depends on. Estimated once and kept in the run's folder."""

    def __post_init__(self) -> None:
        positive(self, "strength")
        between(self, 0, 10**12, "strength")
        between(self, 1, 10**6, "rows")

    def unused(self) -> dict[str, str]:
        """What is for an old text that is not given."""
        return dict.fromkeys(("strength", "rows"), "without tokens") if self.tokens is None else {}


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """Learning from those rows of many that are worth it: not yet known, and no noise."""

    reference: Path | None = None
    """Model folder (ours or one of transformers), run or checkpoint of the same tokenizer that has learned from other
    text of the same kind, and may be smaller. A row is worth the model's loss less this one's. Left out: every row is
    learned from."""

    candidates: int = 4
    """Rows that are scored for each that is learned from. 4 make a step about 2.5 (with a small reference) to 3.7 times
    as long; --train.epochs counts the candidates."""

    def __post_init__(self) -> None:
        between(self, 2, 1000, "candidates")

    def unused(self) -> dict[str, str]:
        """What is for rows that are not scored."""
        return {"candidates": "without reference"} if self.reference is None else {}


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(StageConfig):
    """Trains a model on plain text, from fresh weights or from those of another model."""

    objective: Literal["causal", "masked", "prefix"] = "causal"
    """What is predicted. causal: each token from those before it. masked: hidden tokens from both sides; with
    model.causal false. prefix: the rest of a row from a beginning that is read both ways. See docs/objectives.md."""

    masked_share: float = 0.15
    """Share of the tokens that `masked` hides."""

    data: TrainingDataConfig
    """The text that is learned from, and how it becomes rows."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """What the model is made of."""

    verify: bool = False
    """Hash every byte of the inputs before use; otherwise what is read is checked as it is read."""

    init: Path | None = None
    """Model folder (ours or one of transformers), run or checkpoint whose weights training starts from (continued
    pretraining), with its tokenizer and architecture. Left out: fresh weights."""

    resize_vocabulary: bool = False
    """With init: whether the tokens may be those of a tokenizer that has more tokens than the initial model's, for
    which embeddings and head then grow. Otherwise such a tokenizer is refused."""

    consolidation: ConsolidationConfig = field(default_factory=ConsolidationConfig)
    """With init: what the initial model knows is held fast."""

    selection: SelectionConfig = field(default_factory=SelectionConfig)
    """Which of the rows are learned from."""

    def __post_init__(self) -> None:
        between(self, 0.01, 0.99, "masked_share")
        if self.consolidation.tokens is not None and self.init is None:
            raise ConfigError("consolidation.tokens needs init: a fresh model has nothing to forget")
        if self.objective != "causal" and self.data.infilling:
            raise ConfigError(f"data.infilling is for the objective causal, not {self.objective}")
        if self.objective == "masked" and self.samples.every is not None:
            raise ConfigError("samples.every needs a model that can go on with a text; one of hidden tokens cannot")

    def unused(self) -> dict[str, str]:
        """What is for another objective."""
        why = f"under the objective {self.objective}, it is for masked"
        return {} if self.objective == "masked" else {"masked_share": why}
