"""What is watched while a run goes on. None of it moves a weight. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from seedbed.configuration import at_least
from seedbed.errors import ConfigError

TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """How training.log is written."""

    format: Literal["text", "json"] = "text"
    """text: a line for people. json: one object a line, with time, level, logger and message."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is written down. Warnings are shown in any case."""


@dataclass(frozen=True, kw_only=True)
class StatisticsConfig:
    """What the inside of the model looks like: norms of gradients, sizes of updates, activations, logits, attention.
    Written to statistics.jsonl; the same in every repetition of the run."""

    every: int | None = None
    """Steps between two looks, each of which takes about as long as a validation of `rows` rows. Left out: none."""

    rows: int = 2
    """Rows of the validation data that activations, logits and attention are looked at over: always the same ones."""

    histograms: bool = False
    """Send histograms of all weights and gradients to the trackers that draw them, at each look."""

    def __post_init__(self) -> None:
        at_least(self, 1, "every", "rows")
        if self.histograms and self.every is None:
            raise ConfigError("histograms are made at each look, and every is left out", "Give statistics.every too.")

    def unused(self) -> dict[str, str]:
        """What is for looks that nobody asked for."""
        return {"rows": "without every"} if self.every is None else {}


@dataclass(frozen=True, kw_only=True)
class SamplesConfig:
    """Texts that the model writes while it learns; they go to samples.jsonl."""

    every: int | None = None
    """Steps between two times. Left out: none."""

    prompts: list[str] = field(default_factory=lambda: ["Once upon a time", "The meaning of"])
    """What is continued."""

    max_tokens: int = 64
    """Longest continuation, in tokens."""

    temperature: float = 0.8
    """Divides the logits; 0 always takes the likeliest token."""

    def __post_init__(self) -> None:
        at_least(self, 1, "every", "max_tokens")
        at_least(self, 0, "temperature")

    def unused(self) -> dict[str, str]:
        """What is for texts that nobody asked for."""
        return dict.fromkeys(("prompts", "max_tokens", "temperature"), "without every") if self.every is None else {}


@dataclass(frozen=True, kw_only=True)
class ProbesConfig:
    """Functions of your own that measure the model while it learns; what they return goes to statistics.jsonl."""

    every: int | None = None
    """Steps between two calls. Left out: none."""

    functions: list[str] = field(default_factory=list)
    """Each as package.module:function, found as `python -m` finds modules, in the current folder too. It is called as
    function(model, tokenizer, batch) and returns numbers by name. The code runs in this process: name only your own."""

    def __post_init__(self) -> None:
        at_least(self, 1, "every")
        for place in self.functions:
            module, _, name = place.partition(":")
            if not all(part.isidentifier() for part in [*module.split("."), name]):
                raise ConfigError(f"functions holds {place!r}, which is not of the form package.module:function")

    def unused(self) -> dict[str, str]:
        """Functions that are never called."""
        return {"functions": "without every"} if self.every is None else {}


@dataclass(frozen=True, kw_only=True)
class AlertsConfig:
    """When a run calls for a person. Each alert is a line in the log; with `stop` it also ends the run, with an exit
    code of its own: 3 for a spike, 4 for a stall, 5 for numbers that are not finite."""

    spike: float | None = None
    """A loss this many times the median of the last 50 steps is a spike, such as 1.5. Left out: none is."""

    on_spike: Literal["log", "stop"] = "log"
    """What a spike does. The last checkpoint is from before it."""

    stall: float | None = None
    """Seconds in which nothing happens at all that are a stall. Left out: none are. Must be longer than a validation
    and a checkpoint take."""

    on_stall: Literal["log", "stop"] = "log"
    """What a stall does. stop ends the process at once, because it does not answer: for a supervisor that starts it
    anew."""

    on_nonfinite: Literal["off", "log", "stop"] = "off"
    """What the first of several steps does whose gradient is not finite. In any case such a step is left out, and
    train.nonfinite_limit of them in a row end the run."""

    webhook: str | None = None
    """Name of the environment variable that holds the address to which each alert is posted as JSON. The address
    itself, which may be a secret, is never written down."""

    webhook_timeout: float = 5.0
    """Seconds after which an address that does not answer is given up."""

    def __post_init__(self) -> None:
        at_least(self, 1, "spike")
        at_least(self, 0.01, "stall", "webhook_timeout")
        if self.webhook is not None and not self.webhook.isidentifier():
            raise ConfigError(
                "webhook is not the name of an environment variable",
                "Put the address into a variable, and its name here: SEEDBED_WEBHOOK.",
            )

    def unused(self) -> dict[str, str]:
        """What is for alerts that nobody asked for."""
        found = {}
        if self.spike is None:
            found["on_spike"] = "without spike"
        if self.stall is None:
            found["on_stall"] = "without stall"
        if not self.wanted:
            found["webhook"] = "without spike, stall or on_nonfinite"
        if self.webhook is None:
            found["webhook_timeout"] = "without webhook"
        return found

    @property
    def wanted(self) -> bool:
        """Whether there is anything to be watched for."""
        return self.spike is not None or self.stall is not None or self.on_nonfinite != "off"


@dataclass(frozen=True, kw_only=True)
class ProfileConfig:
    """A look at where the time goes: profile/trace.json (chrome://tracing, Perfetto) and profile/operators.txt."""

    steps: int | None = None
    """How many steps are recorded. Left out: none. A few are enough: each makes megabytes."""

    from_step: int = 10
    """The first of them, past the slow first steps."""

    def __post_init__(self) -> None:
        at_least(self, 1, "steps", "from_step")

    def unused(self) -> dict[str, str]:
        """The beginning of what is not recorded."""
        return {"from_step": "without steps"} if self.steps is None else {}
