"""What is asked of a model. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from seedbed.configuration import at_least, between, positive, whole
from seedbed.errors import ConfigError

MOST_STOPS = 256
LONGEST_STOP = 1_000
"""Characters. Each new piece of text is searched for all of them."""

CONSTRAINTS = ("json_schema", "regex", "choice", "grammar")
"""Fields that say what may be said at all."""


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How the next token is chosen, and when to stop."""

    max_tokens: int = 100
    """Longest continuation, in tokens."""

    min_tokens: int = 0
    """Tokens that there are at least: until then neither the model nor a stop text ends it, but a
    constraint that lets nothing more come does."""

    temperature: float = 0.8
    """Divides the logits: below 1 sharper, above 1 flatter; 0 always takes the likeliest token (greedy)."""

    top_k: int | None = None
    """Choose among the k likeliest tokens only. Left out: all."""

    top_p: float | None = None
    """Choose among the fewest tokens that together hold this much probability. Left out: all."""

    min_p: float | None = None
    """Choose among tokens at least this fraction as likely as the likeliest. Left out: all."""

    typical_p: float | None = None
    """Choose among the tokens whose surprise is nearest to what is expected, as many as hold this much probability.
    Left out: all."""

    repetition_penalty: float = 1.0
    """Divides the positive, and multiplies the negative, logits of tokens that occurred already; 1 changes nothing."""

    presence_penalty: float = 0.0
    """Taken from the logits of tokens that the continuation holds."""

    frequency_penalty: float = 0.0
    """Taken from the logits of a token once for each time that the continuation holds it."""

    no_repeat_ngram: int | None = None
    """So many tokens never come twice in the same order. Left out: they may."""

    logit_bias: dict[str, float] = field(default_factory=dict)
    """Added to the logits of tokens, by their ids: {"42": -100} forbids token 42."""

    seed: int = 0
    """The same request with the same seed gives the same text. Give another seed for another text."""

    stop: list[str] = field(default_factory=list)
    """Texts that end the continuation; they are not part of it."""

    json_schema: str | dict[str, Any] | None = None
    """The answer is JSON of this schema: its text, @FILE for one in a file, in Python also a dict. Without white space,
    unless the schema's "x-guidance" says otherwise."""

    regex: str | None = None
    """The whole answer matches this regular expression (one without look-around and back-references)."""

    choice: list[str] | None = None
    """The answer is one of these texts."""

    grammar: str | None = None
    """The answer is a text of this grammar: rules as Lark writes them, from `start:` on, or as llama.cpp does (GBNF),
    from `root ::=` on; @FILE for one in a file."""

    timeout: float | None = None
    """Seconds after which a continuation ends as it is. Left out: it takes its time."""

    logprobs: int | None = None
    """Tell the logarithm of each token's probability, and those of as many likeliest ones (at most 20). Left out:
    neither."""

    def __post_init__(self) -> None:
        whole(self, "max_tokens", "min_tokens", "top_k", "no_repeat_ngram", "logprobs", "seed")
        at_least(self, 1, "max_tokens", "top_k", "no_repeat_ngram")
        at_least(self, 0, "temperature")
        between(self, 0, 2**63 - 1, "seed")
        between(self, 0, 1, "top_p", "min_p", "typical_p")
        between(self, -2, 2, "presence_penalty", "frequency_penalty")
        between(self, 0, 20, "logprobs")
        between(self, 0, self.max_tokens, "min_tokens")
        positive(self, "repetition_penalty", "top_p", "typical_p", "timeout")
        if isinstance(self.stop, str):
            raise ConfigError("stop is a list of texts", f"Give [{self.stop!r}].")
        if "" in self.stop:
            raise ConfigError("stop holds an empty text, which would end every continuation at once")
        if len(self.stop) > MOST_STOPS or any(len(text) > LONGEST_STOP for text in self.stop):
            raise ConfigError(f"stop holds at most {MOST_STOPS} texts of at most {LONGEST_STOP:,} characters")
        if len(given := [name for name in CONSTRAINTS if getattr(self, name) is not None]) > 1:
            raise ConfigError(f"{given[0]} and {given[1]} are both given", "One of them says what may be said.")
        for token, bias in self.logit_bias.items():
            if not str(token).isdecimal() or not -100 <= bias <= 100:
                raise ConfigError(
                    f"logit_bias has {token!r}: {bias}", "Give ids of tokens with numbers of −100 to 100."
                )

    @property
    def adjusts(self) -> bool:
        """Whether what was said changes what is likely."""
        penalties = (self.repetition_penalty - 1, self.presence_penalty, self.frequency_penalty)
        return any(penalties) or self.no_repeat_ngram is not None or bool(self.logit_bias)


@dataclass(frozen=True, kw_only=True)
class SearchConfig(SamplingConfig):
    """Whether the likeliest continuation is looked for, instead of drawing token after token."""

    beams: int | None = None
    """Beam search: follow so many of the likeliest continuations side by side. 1 is greedy. Left out: none."""

    best: int = 1
    """How many of the continuations that beam search found are told, the best first."""

    length_penalty: float = 1.0
    """A continuation's score is the logarithm of its probability, over its tokens to this power: 1 is the mean of its
    tokens, 0 favours short ones, more than 1 long ones."""

    early_stopping: Literal["full", "unlikely", "never"] = "unlikely"
    """When beam search ends before max_tokens, once as many continuations have ended as there are beams. full: at once.
    unlikely: when none under way has a better score. never: when none can reach one, however long it becomes."""

    beam_groups: int = 1
    """Diverse beam search: beams in so many groups, each of which avoids the tokens of those before it."""

    diversity: float = 0.0
    """How much a token of another group is avoided: taken from its logarithm for each beam that has just taken it."""

    penalty_alpha: float | None = None
    """Contrastive search: of the top_k likeliest tokens take that with the best (1 − alpha) · probability − alpha ·
    likeness to what was said. 0.6 and top_k 4 are usual. Left out: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        between(self, 1, 1024, "beams", "best", "beam_groups")
        between(self, -10, 10, "length_penalty")
        between(self, 0, 100, "diversity")
        between(self, 0, 1, "penalty_alpha")
        if self.beams is not None and self.penalty_alpha is not None:
            raise ConfigError("beams and penalty_alpha are two ways to search", "Give one of them.")
        if self.penalty_alpha is not None and self.top_k is None:
            raise ConfigError("penalty_alpha needs top_k: the tokens it chooses among", "For example --top_k 4.")
        given = [name for name in ("top_k", "top_p", "min_p", "typical_p") if getattr(self, name) is not None]
        if chance := [name for name in given if self.beams is not None or name != "top_k"] if self.is_search else []:
            raise ConfigError(f"{chance[0]} is for drawing by chance, and a search draws nothing", "Leave it out.")
        self._check_beams(self.beams or 1)

    def _check_beams(self, beams: int) -> None:
        if self.best > beams:
            raise ConfigError(f"best is {self.best}, of {beams} beams", f"Give --beams {self.best} or more.")
        if beams % self.beam_groups:
            raise ConfigError(f"{beams} beams do not make {self.beam_groups} equal groups")
        if (self.beam_groups > 1) != (self.diversity > 0):
            raise ConfigError("beam_groups and diversity are of use only together", "For example 2 and 0.5.")

    @property
    def is_search(self) -> bool:
        """Whether nothing is drawn."""
        return self.beams is not None or self.penalty_alpha is not None

    def unused(self) -> dict[str, str]:
        """Settings that are not read, and may have come from a file."""
        told = dict.fromkeys(("temperature", "seed"), "in a search, which draws nothing") if self.is_search else {}
        if self.beams is None:
            told |= dict.fromkeys(("length_penalty", "early_stopping"), "without beams")
        return told


CACHES = Literal["auto", "model", "fp16", "int8"]
"""What keys and values may be stored in."""


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How many are answered at once, and what is kept of them."""

    rows: int = 32
    """Continuations that are made at once; others wait."""

    step_tokens: int = 512
    """Tokens that a step computes: one of each continuation, the rest of prompts. More is faster for long prompts, and
    lets those who are being answered wait longer."""

    cache_tokens: int | None = None
    """Tokens whose keys and values are kept, in memory that is taken when it is first needed. Left out: `rows` times
    the model's context, but no more than 4 GB."""

    cache: CACHES = "auto"
    """What keys and values are stored in. auto: fp16 where the layers are int8, else as the model computes (model).
    int8: whole numbers, with a scale for each position and head: half the memory of fp16, and nearly the same
    answers."""

    guesses: int = 5
    """Where tokens are guessed ahead: how many at a time, at most."""

    exact: bool = False
    """Refuse a model whose answers could depend, in the last bits of a score, on who else is being served."""

    def __post_init__(self) -> None:
        between(self, 1, 10_000, "rows")
        between(self, 1, 2**20, "step_tokens")
        between(self, 1, 2**40, "cache_tokens")
        between(self, 1, 64, "guesses")


WEIGHTS = Literal["stored", "int8"]
"""What the layers of a model hold."""


@dataclass(frozen=True, kw_only=True)
class OpenConfig:
    """How a model is opened to answer."""

    model: Path
    """Model folder (ours or one of transformers), run or checkpoint. An adapter, or a run that trained one, stands for
    its base with the adapter merged into it."""

    adapter: Path | None = None
    """An adapter over the model: a folder in peft's file format, or a run that trained one. Left out: the model as it
    is."""

    weights: WEIGHTS = "stored"
    """int8: the layers, but for routed experts, in 8-bit whole numbers, rounded as the model is opened: a fourth as
    large, and faster. For a model that is not quantized yet, on a CPU."""

    draft: str | None = None
    """Guess tokens ahead and check them together; the answer stays the same. lookup: what followed earlier in the same
    text; ngram: what followed in all texts so far; else the folder of a smaller model with the same tokenizer."""

    guesses: int = 5
    """Tokens that are guessed at a time, at most."""

    cache: CACHES = "auto"
    """What keys and values are stored in. auto: fp16 where the layers are int8, else as the model computes (model).
    int8: half the memory of fp16, and nearly the same answers."""

    exact: bool = False
    """Refuse a model whose answers could depend, in the last bits of a score, on who else is being served."""

    device: Literal["auto", "cuda", "mps", "xpu", "cpu"] = "auto"
    """auto: CUDA or ROCm, else MPS, else XPU, else CPU."""

    def __post_init__(self) -> None:
        between(self, 1, 64, "guesses")

    def unused(self) -> dict[str, str]:
        """Settings that are not read, and may have come from a file."""
        return {"guesses": "without draft"} if self.draft is None else {}


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(SearchConfig, OpenConfig):
    """Continues texts."""

    prompt: str | None = None
    """The text to continue."""

    prompts: Path | None = None
    """A file with one prompt a line; the answers come as one JSON object a line, in the order of the
    file."""

    demo: bool = False
    """Continue a few built-in openings."""

    n: int = 1
    """Continuations of each prompt, with numbers of their own from the same seed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        OpenConfig.__post_init__(self)
        between(self, 1, 1024, "n")
        if self.n > 1 and self.is_search:
            raise ConfigError("n continuations differ by chance, and a search draws nothing", "Give beams and best.")
        if (self.prompt is not None) + (self.prompts is not None) + self.demo != 1:
            raise ConfigError("give one of prompt, prompts and demo", 'For example --prompt "Once upon a time".')
        if self.draft == "":
            raise ConfigError("draft is empty", "Give lookup, ngram or a model, or leave it out.")
        if self.draft is not None and self.is_search:
            raise ConfigError("a search guesses nothing ahead", "Leave draft out.")

    def unused(self) -> dict[str, str]:
        return SearchConfig.unused(self) | OpenConfig.unused(self)


@dataclass(frozen=True, kw_only=True)
class ChatConfig(SamplingConfig, OpenConfig):
    """Talks to a model, turn by turn."""

    template: str | None = None
    """Chat template: chatml, instruct, chat, llama3, alpaca, a .jinja file, or Jinja source. Left out: the one
    stored with the model's tokenizer."""

    system: str | None = None
    """A system message to begin with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        OpenConfig.__post_init__(self)
        if self.logprobs is not None:
            raise ConfigError("chat tells no probabilities", "Leave logprobs out, or take seedbed generate.")
