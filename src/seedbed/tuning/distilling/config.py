"""How a student learns from a teacher. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from seedbed.configuration import at_least, between, positive
from seedbed.errors import ConfigError
from seedbed.tuning.config import PROMPT_METHODS, FinetuneConfig


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """What the student is to have of the teacher."""

    share: float = 0.9
    """Of the teacher in the loss; the rest is the cross-entropy of the text."""

    temperature: float = 2.0
    """That the logits of both are divided by, so that unlikely tokens count for more. The divergence is multiplied with
    its square, and its gradients stay as large (Hinton et al. 2015, arXiv:1503.02531, §2)."""

    divergence: Literal["forward", "reverse", "jensen_shannon"] = "forward"
    """From the teacher's p to the student's q. forward: KL(p‖q), the student covers all that the teacher says. reverse:
    KL(q‖p), it says nothing that the teacher does not (Gu et al. 2023, arXiv:2306.08543). jensen_shannon: between them
    (Agarwal et al. 2023, arXiv:2306.13649, eq. 1)."""

    beta: float = 0.5
    """Of jensen_shannon: the teacher's share in the mixture that both are compared with."""

    hidden: float = 0.0
    """Weight, beside the loss of a token, of the mean squared difference between the hidden states of student and
    teacher. Those of another width pass through a matrix that learns with the student, and is not saved with it
    (FitNets: Romero et al. 2015, arXiv:1412.6550, §2.2)."""

    layers: list[str] = field(default_factory=list)
    """Whose: STUDENT:TEACHER, blocks by number from 0 on, ["1:3", "3:7"]. Left out: the last of both."""

    def __post_init__(self) -> None:
        between(self, 0, 1, "share")
        positive(self, "temperature")
        between(self, 0.001, 0.999, "beta")
        at_least(self, 0, "hidden")

    def unused(self) -> dict[str, str]:
        """What is for another divergence, or for hidden states that are not compared."""
        unused = {} if self.divergence == "jensen_shannon" else {"beta": f"with divergence {self.divergence}"}
        return unused if self.hidden else unused | {"layers": "with hidden 0"}


@dataclass(frozen=True, kw_only=True)
class OnPolicyConfig:
    """Rows in which the student, as it is at that step, has answered the conversations' prompts itself (Agarwal et al.
    2023, arXiv:2306.13649, algorithm 1)."""

    share: float = 0.0
    """Of the conversations' rows: 0 none, 1 all. They are learned from by the divergence alone, for no text says what
    else could have come."""

    temperature: float = 1.0
    """Of these answers; 0: the likeliest token each time."""

    max_tokens: int = 256
    """Longest answer; a longer one is cut off, and learned from as far as it goes. Never more than its prompt leaves of
    a row."""

    def __post_init__(self) -> None:
        between(self, 0, 1, "share")
        at_least(self, 0, "temperature")
        at_least(self, 1, "max_tokens")

    def unused(self) -> dict[str, str]:
        """What is for answers that nobody asks for."""
        return {} if self.share else dict.fromkeys(("temperature", "max_tokens"), "with share 0")


@dataclass(frozen=True, kw_only=True)
class DistillConfig(FinetuneConfig):
    """Teaches a model from conversations and from what a teacher, as the run goes on, says of each token the assistant
    says."""

    teacher: Path
    """Model folder, run or checkpoint with the student's tokenizer. It does not learn."""

    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    """What the student is to have of the teacher."""

    on_policy: OnPolicyConfig = field(default_factory=OnPolicyConfig)
    """What the student itself says, for the teacher to judge."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.on_policy.share:
            return
        if self.train.parallel == "fsdp" or self.train.tensor_parallel > 1:
            raise ConfigError(
                "the student answers with whole weights (on_policy.share), which fsdp and tensor_parallel divide",
                "Take ddp or zero1.",
            )

    def refuse(self, method: str) -> None:
        super().refuse(method)
        if method in PROMPT_METHODS:
            raise ConfigError(
                f"what the method {method} learns stands in the text, and the teacher reads the same text",
                "Take another method, such as lora.",
            )

    def unused(self) -> dict[str, str]:
        """What is for rows of the data, where none is learned from."""
        return super().unused() | ({"curriculum": "with on_policy.share 1"} if self.on_policy.share == 1 else {})
