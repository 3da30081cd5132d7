"""A continuation while it is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from seedbed.inference.config import SamplingConfig
from seedbed.inference.text import StopText


@dataclass(frozen=True)
class Completion:
    """What a model said."""

    text: str
    tokens: tuple[int, ...]
    reason: str
    """"end": the model ended; "stop": a stop text came; "length": max_tokens or the context was reached; "cancelled"."""


@dataclass(eq=False)
class Generation:
    """Its tokens, and how far the model has read them."""

    tokens: list[int]
    """The prompt, and what was made."""

    prompt: int
    """How many of them are the prompt."""

    limit: int
    """How many there may be."""

    sampling: SamplingConfig
    text: StopText
    salt: bytes = b""
    """Tells apart whose blocks must not be shared."""

    computed: int = 0
    """Tokens whose keys and values are in the cache."""

    blocks: list[int] = field(default_factory=list)
    """Where they are."""

    names: list[bytes] = field(default_factory=list)
    """Of those of its blocks that can be found by others, or were."""

    seen_V: Tensor | None = None
    """True for every token that occurred; where a penalty asks for it."""

    reason: str | None = None
    """Why it ended; None: it goes on."""

    @property
    def missing(self) -> int:
        """Tokens that the model has not read: 1 when it decodes, more of a prompt."""
        return len(self.tokens) - self.computed

    @property
    def made(self) -> Sequence[int]:
        return self.tokens[self.prompt :]

    @property
    def completion(self) -> Completion:
        assert self.reason is not None
        return Completion(self.text.whole, tuple(self.made), self.reason)
