"""What a continuation may say: JSON of a schema, a match of an expression, one of some texts, a sentence of a grammar.

llguidance follows the grammar and tells which tokens may come next. Where only one text can, its tokens are taken
without asking the model (jump-forward: Zheng et al. 2024, arXiv:2312.07104, §4).

Shape suffixes: V vocabulary.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seedbed.configuration.hints import shown
from seedbed.errors import DataError
from seedbed.extras import missing
from seedbed.inference.config import SamplingConfig, SearchConfig
from seedbed.inference.grammars import grammar_of, wanted
from seedbed.inference.spelling import spelling_of
from seedbed.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

MOST_GRAMMARS = 32
"""Compiled ones that are kept. Most take less than a megabyte, the worst some hundred."""

MOST_STATES = 50_000
"""Of the automaton that reads a grammar's texts, of one or two kilobytes each."""

STACK = 64 << 20
"""Bytes. The compiler goes into itself for each level of a grammar: on a usual stack of a thread too many end the
process."""

LONGEST_REASON = 200

stacks = threading.Lock()


class Constraint:
    """Of one request; it is told of each token that is chosen."""

    def __init__(self, matcher: LLMatcher, vocabulary: int, *, jumps: bool):
        """`jumps`: tokens that must come are not chosen. Otherwise the same ones are chosen one by one."""
        self.matcher, self.vocabulary, self.jumps = matcher, vocabulary, jumps
        self.forced: deque[int] = deque()
        """Those that are to be chosen one by one, next; the matcher is behind them already."""
        self.stuck: str | None = None
        """Why nothing may come any more, though not all is said."""

    @property
    def complete(self) -> bool:
        """Whether all is said: nothing may follow."""
        return self.matcher.is_stopped() and not self.forced and self.stuck is None

    def __call__(self, logits_V: Tensor) -> Tensor:
        """The scores of what may come next; −∞ for all else, and for everything once it is stuck."""
        possible_V = torch.from_numpy(self.possible()).to(logits_V.device)
        return logits_V.masked_fill(~possible_V, -torch.inf)

    def possible(self) -> NDArray[np.bool_]:
        """Whether each token (V) may come next."""
        if self.forced:
            possible_V = np.zeros(self.vocabulary, dtype=np.bool_)
            possible_V[self.forced[0]] = True
            return possible_V
        bits = np.frombuffer(self.matcher.compute_bitmask(), dtype=np.uint8)
        possible_V = np.unpackbits(bits, count=self.vocabulary, bitorder="little").view(np.bool_)
        if self.matcher.is_error():  # what it gives then is the end of the text
            self.stuck = self.stuck or _line(self.matcher.get_error())
            return np.zeros_like(possible_V)
        if not possible_V.any():
            self.stuck = "the tokenizer has no token for what must come next"
        return possible_V

    def add(self, token: int) -> Sequence[int]:
        """A token was chosen. Returns those that must follow it, where they are not to be chosen."""
        if self.forced:
            self.forced.popleft()
            return ()
        self._follow([token])
        ahead = self.matcher.compute_ff_tokens()
        beyond = next((place for place, id in enumerate(ahead) if id >= self.vocabulary), None)
        self._follow(ahead := ahead[:beyond])
        if self.jumps:
            return ahead
        self.forced.extend(ahead)
        return ()

    def fork(self) -> Constraint:
        """The same once more, to be told of other tokens."""
        other = Constraint(self.matcher.deep_copy(), self.vocabulary, jumps=self.jumps)
        other.forced, other.stuck = self.forced.copy(), self.stuck
        return other

    def _follow(self, tokens: list[int]) -> None:
        if tokens and not self.matcher.consume_tokens(tokens):
            self.stuck = _line(self.matcher.get_error())


class Grammars:
    """Compiled for one tokenizer. Those that were wanted last are kept; any thread may ask."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: int):
        """`vocabulary`: only ids below are chosen."""
        self.tokenizer, self.vocabulary = tokenizer, vocabulary
        self._kept: OrderedDict[tuple[str, str], LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, sampling: SamplingConfig) -> None:
        """DataError for a constraint that cannot be kept to, ConfigError when llguidance is missing."""
        if (said := wanted(sampling)) is not None:
            self._find(*said)

    def constraint(self, sampling: SamplingConfig) -> Constraint | None:
        """For a request that begins; None when it may say anything. Raises what `check` raises."""
        if (said := wanted(sampling)) is None:
            return None
        # Each token with its probability needs the model's scores for it, as does a search, and one that would repeat
        # an n-gram may not come, even where it must.
        searches = isinstance(sampling, SearchConfig) and sampling.is_search
        jumps = sampling.logprobs is None and sampling.no_repeat_ngram is None and not searches
        return Constraint(self._find(*said).deep_copy(), self.vocabulary, jumps=jumps)

    def forget(self, sampling: SamplingConfig) -> None:
        """A request got stuck: what its automaton has grown to, which all of this grammar share, helps no other."""
        with self._lock:
            self._kept.pop(wanted(sampling) or ("", ""), None)

    def _find(self, kind: str, text: str) -> LLMatcher:
        with self._lock:
            if (found := self._kept.get((kind, text))) is not None:
                self._kept.move_to_end((kind, text))
                return found
        made = self._compile(kind, text)
        with self._lock:
            self._kept[kind, text] = made
            if len(self._kept) > MOST_GRAMMARS:
                self._kept.popitem(last=False)
        return made

    def _compile(self, kind: str, text: str) -> LLMatcher:
        try:
            import llguidance  # comes when it is first wanted
        except ImportError:
            raise missing(kind, "llguidance") from None
        grammar = grammar_of(kind, text)
        limits = llguidance.LLParserLimits(max_lexer_states=MOST_STATES, verbose_errors=False)
        spelling = self._spelling
        for said in json.loads(text) if kind == "choice" else ():
            if any(id >= self.vocabulary for id in spelling.tokenize_str(said)):
                raise DataError(f"choice has {shown(said)}, for which the tokenizer has no tokens")

        def compile() -> None:
            made.append(llguidance.LLMatcher(spelling, grammar, log_level=0, limits=limits))

        made: list[LLMatcher] = []
        with stacks:
            usual = threading.stack_size(STACK)
            try:
                thread = threading.Thread(target=compile)
                thread.start()
            finally:
                threading.stack_size(usual)
        thread.join()
        beginning = Constraint(made[0].deep_copy(), self.vocabulary, jumps=True)
        beginning.possible()
        warned = next(iter(made[0].get_grammar_warnings()), None)  # of what it would overlook
        if reason := beginning.stuck or warned:
            raise DataError(f"{kind} cannot be kept to: {reason}")
        return made[0]

    @cached_property
    def _spelling(self) -> LLTokenizer:
        return spelling_of(self.tokenizer, self.vocabulary)


def _line(reason: str) -> str:
    """What llguidance says was wrong, without where in its own words."""
    if reason.startswith("NoExtension"):
        return "nothing can come next"
    found = re.search(r"^error: (.*)", reason, re.MULTILINE)
    line = found[1] if found else reason.strip().partition("\n")[0]
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]}…"
