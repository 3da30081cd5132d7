"""A continuation while it is made.

Shape suffixes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from seedbed.errors import SeedbedError
from seedbed.inference.adjustments import Adjustments
from seedbed.inference.config import SamplingConfig
from seedbed.inference.constraints import Constraint
from seedbed.inference.sampling import uniform
from seedbed.inference.text import StopText


@dataclass(frozen=True)
class Likelihood:
    """How likely a token was, by the model alone: before temperature, penalties and filters."""

    token: int
    logprob: float
    """Natural logarithm of its probability."""

    likeliest: tuple[tuple[int, float], ...]
    """The likeliest tokens with theirs, as many as were asked for."""

    @classmethod
    def of(cls, token: int, logits_V: Tensor, count: int) -> Likelihood:
        """`count`: how many likeliest ones."""
        logprobs_V = logits_V.float().log_softmax(-1)
        values, tokens = (found.tolist() for found in logprobs_V.topk(min(count, len(logprobs_V))))
        return cls(token, logprobs_V[token].item(), tuple(zip(tokens, values, strict=True)))


@dataclass(frozen=True)
class Completion:
    """What a model said."""

    text: str
    tokens: tuple[int, ...]
    reason: str
    """"end": the model ended, or its constraint lets nothing more come; "stop": a stop text came; "length": max_tokens
    or the context was reached; "timeout"; "cancelled"."""

    likelihoods: tuple[Likelihood, ...] = ()
    """Of each token, and of the one that ended it; where they were asked for."""

    score: float | None = None
    """Of beam search: the logarithm of its probability, after penalties, over its tokens^length_penalty."""

    jumped: int = 0
    """Tokens that the model was not asked for: no other could come."""

    guessed: int = field(default=0, compare=False)
    """Tokens that were guessed before the model was asked."""

    @property
    def said(self) -> tuple[int, ...]:
        """Its tokens and the one that ended it; where likelihoods were asked for."""
        return tuple(each.token for each in self.likelihoods)

    right: int = field(default=0, compare=False)
    """How many of them it said too: passes that were saved."""


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
    sample: int = 0
    """Which of the n continuations of its prompt."""

    deadline: float | None = None
    """On the monotonic clock: when it ends as it is."""

    salt: bytes = b""
    """Tells apart whose blocks must not be shared."""

    adapter: str | None = None
    """Which one it wears."""

    adjustments: Adjustments | None = None
    constraint: Constraint | None = None
    likelihoods: list[Likelihood] = field(default_factory=list)

    jumped: int = 0
    """Tokens that were made without a choice."""

    computed: int = 0
    """Tokens whose keys and values are in the cache."""

    blocks: list[int] = field(default_factory=list)
    """Where they are."""

    ahead: int | None = None
    """Tokens to guess at a time; None: as many as may be."""

    guessed: int = 0
    """How many were guessed."""

    right: int = 0
    """How many of them came."""

    passed: int = 0
    """Blocks at its beginning that no layer sees any more: they belong to others."""

    names: list[bytes] = field(default_factory=list)
    """Of those of its blocks that can be found by others, or will be."""

    reason: str | None = None
    """Why it ended; None: it goes on."""

    error: SeedbedError | None = None
    """What went wrong, where the reason is "error"."""

    @property
    def missing(self) -> int:
        """Tokens that the model has not read: 1 when it decodes, more of a prompt."""
        return len(self.tokens) - self.computed

    @property
    def made(self) -> Sequence[int]:
        return self.tokens[self.prompt :]

    @property
    def may_end(self) -> bool:
        """Whether it has as many tokens as were asked for at least."""
        return len(self.tokens) - self.prompt >= self.sampling.min_tokens

    def number(self, ahead: int = 0) -> float:
        """What decides which token is next, or the one so many after it: a function of seed, position and sample; where
        nothing is left to chance, 0."""
        if self.sampling.temperature == 0:
            return 0.0
        return uniform(self.sampling.seed, len(self.tokens) + ahead, self.sample)

    @property
    def completion(self) -> Completion:
        assert self.reason is not None
        return Completion(
            self.text.whole,
            tuple(self.made),
            self.reason,
            tuple(self.likelihoods),
            jumped=self.jumped,
            guessed=self.guessed,
            right=self.right,
        )

    def adjusted(self, logits_V: Tensor) -> Tensor:
        """The scores to choose by: changed by what was said, and −∞ for what may not be said."""
        for change in (self.adjustments, self.constraint):
            if change is not None:
                logits_V = change(logits_V)
        return logits_V

    def fork(self) -> Generation:
        """The same once more, to go on in another way. Who forks sees to its blocks."""
        return replace(
            self,
            tokens=[*self.tokens],
            text=self.text.fork(),
            adjustments=None if self.adjustments is None else self.adjustments.fork(),
            constraint=None if self.constraint is None else self.constraint.fork(),
            likelihoods=[*self.likelihoods],
            blocks=[*self.blocks],
            names=[*self.names],
        )

    def add(self, token: int) -> None:
        """One token more."""
        self.tokens.append(token)
        if self.adjustments is not None:
            self.adjustments.add(token)

    def judge(self, guesses: int, right: int, most: int) -> None:
        """So many were guessed and so many of them right: two more the next time when all were, else one less, and
        never more than `most`."""
        self.guessed += guesses
        self.right += right
        ahead = most if self.ahead is None else self.ahead
        self.ahead = min(ahead + 2, most) if right == guesses else max(ahead - 1, 1)
