"""Guesses of the next tokens, which the engine checks in one pass of the model (Leviathan et al. 2023,
arXiv:2211.17192).

A guess costs a row of that pass and saves, when it is right, a pass of its own. What decides a token is the model's
scores and one number that belongs to its place, whether it was guessed or not: so a guess may be as wrong as it likes,
and the answer stays the same.

Shape suffixes: B guesses, N tokens of a pass, D model width, V vocabulary.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from seedbed.errors import ConfigError
from seedbed.inference.generation import Generation
from seedbed.inference.sampling import choose_each
from seedbed.inference.scheduler import Share
from seedbed.model.cache import PagedCache, Places
from seedbed.model.transformer import Transformer

CONTEXTS = (3, 2)
"""Tokens that a next one is looked up by: the longest that is known."""
MOST_ENTRIES = 1_000_000
"""Of a table, of some hundred bytes each. What was learned longest ago goes."""
MOST_SALTS = 64
"""Tables that are kept, one for each salt: who must not share a cache shares no guesses."""


class Drafter(Protocol):
    """Guesses how continuations go on."""

    def guess(self, shares: Sequence[Share]) -> list[list[int]]:
        """For each share at most as many tokens as it has room for, after the last one that is known."""
        ...


@dataclass(frozen=True, eq=False)
class Check:
    """What a step may say of one generation: the next token, and, as long as each is what was guessed, those after
    it."""

    generation: Generation
    first: int
    """Row of the scores that follow what is known; those that follow each guess stand after it."""

    known: int
    """Tokens it has before."""

    guesses: Sequence[int]

    @property
    def row(self) -> int | None:
        """Of the scores that decide its next token; None when it has ended or a guess was wrong."""
        made = self.generation.tokens[self.known :]
        goes_on = self.generation.reason is None and made == list(self.guesses[: len(made)])
        return self.first + len(made) if goes_on and len(made) <= len(self.guesses) else None

    @property
    def right(self) -> int:
        """Guesses that came."""
        made = self.generation.tokens[self.known :]
        wrong = (place for place, guess in enumerate(self.guesses) if made[place : place + 1] != [guess])
        return next(wrong, len(self.guesses))


class Followers:
    """Which token came after which ones, the last time."""

    def __init__(self) -> None:
        self.table: OrderedDict[tuple[int, ...], int] = OrderedDict()

    def learn(self, tokens: Sequence[int], first: int) -> None:
        """What follows what, for each token from `first` on."""
        for place in range(first, len(tokens)):
            for size in CONTEXTS:
                if place >= size:
                    context = tuple(tokens[place - size : place])
                    self.table[context] = tokens[place]
                    self.table.move_to_end(context)
        while len(self.table) > MOST_ENTRIES:
            self.table.popitem(last=False)

    def follow(self, tokens: Sequence[int], count: int) -> list[int]:
        """As many tokens as are known to come next."""
        longest = max(CONTEXTS)
        recent = list(tokens[-longest:])
        for _ in range(count):
            found = next((self.table[key] for size in CONTEXTS if (key := tuple(recent[-size:])) in self.table), None)
            if found is None:
                break
            recent.append(found)
        return recent[min(longest, len(tokens)) :]


class TextDrafts:
    """Guesses from texts, at the cost of no pass: what followed the same tokens before, in the same text (Saxena 2023,
    "Prompt lookup decoding") or in all that the engine has read."""

    def __init__(self, *, everyones: bool):
        """`everyones`: what was read of all continuations with the same salt, not of each alone."""
        self.everyones = everyones
        self._own: WeakKeyDictionary[Generation, Followers] = WeakKeyDictionary()
        self._of_salt: OrderedDict[bytes, Followers] = OrderedDict()
        self._learned: WeakKeyDictionary[Generation, int] = WeakKeyDictionary()

    def guess(self, shares: Sequence[Share]) -> list[list[int]]:
        guesses = []
        for share in shares:
            generation = share.generation
            followers = self._followers(generation)
            followers.learn(generation.tokens, self._learned.get(generation, 0))
            self._learned[generation] = len(generation.tokens)
            guesses.append(followers.follow(generation.tokens, share.ahead))
        return guesses

    def _followers(self, generation: Generation) -> Followers:
        if not self.everyones:
            return self._own.setdefault(generation, Followers())
        followers = self._of_salt.setdefault(generation.salt, Followers())
        self._of_salt.move_to_end(generation.salt)
        while len(self._of_salt) > MOST_SALTS:
            self._of_salt.popitem(last=False)
        return followers


class ModelDrafts:
    """Guesses of a smaller model, which reads what the model reads, in blocks of the same numbers.

    It chooses by the same settings and the same numbers, so it guesses right where both see things alike.
    """

    def __init__(self, model: Transformer, cache: PagedCache, vocabulary: int):
        """ConfigError when the model reads both ways."""
        if not model.config.causal:
            raise ConfigError("the draft reads both ways (model.causal is false): it cannot guess what comes next")
        self.model, self.cache, self.vocabulary = model.eval(), cache, vocabulary
        self._read: WeakKeyDictionary[Generation, int] = WeakKeyDictionary()
        """How many tokens of each it has read, the last of them perhaps its own wrong guesses."""

    def guess(self, shares: Sequence[Share]) -> list[list[int]]:
        guesses: list[list[int]] = [[] for _ in shares]
        unread: dict[int, tuple[int, list[int]]] = {}  # of a share: the first position and the tokens from there
        for place, share in enumerate(shares):
            generation = share.generation
            last = generation.computed + share.count
            if last + share.ahead <= self.model.config.context:
                first = min(self._read.get(generation, generation.computed), generation.computed)
                unread[place] = (first, generation.tokens[first:last])
                self._read[generation] = last + max(share.ahead - 1, 0)
        while unread:
            ends_ND = self._pass(shares, unread)
            places = [place for place in unread if len(guesses[place]) < shares[place].ahead]
            rows = [row for row, place in enumerate(unread) if place in places]
            unread = {}
            for place, token in zip(places, self._choose(ends_ND[rows], shares, guesses, places), strict=True):
                guesses[place].append(token)
                if len(guesses[place]) < shares[place].ahead:
                    unread[place] = (len(shares[place].generation.tokens) + len(guesses[place]) - 1, [token])
        return guesses

    def _pass(self, shares: Sequence[Share], unread: dict[int, tuple[int, list[int]]]) -> Tensor:
        """What it makes of the last token of each (B, D)."""
        device = self.model.device
        tables = [shares[place].generation.blocks for place in unread]
        spans = [(first, len(tokens)) for first, tokens in unread.values()]
        tokens_N = torch.tensor([token for _, tokens in unread.values() for token in tokens], device=device)
        ends_B = torch.tensor([count for _, count in spans]).cumsum(0) - 1
        return self.model.step(tokens_N, Places.of(tables, spans, device), self.cache)[ends_B.to(device)]

    def _choose(
        self, x_BD: Tensor, shares: Sequence[Share], guesses: Sequence[Sequence[int]], places: Sequence[int]
    ) -> list[int]:
        if not places:
            return []
        generations = [shares[place].generation for place in places]
        numbers = [
            generation.number(len(guesses[place])) for generation, place in zip(generations, places, strict=True)
        ]
        logits_BV = self.model.logits(x_BD)[:, : self.vocabulary]
        tokens = choose_each(logits_BV.float(), [generation.sampling for generation in generations], numbers)
        return [max(token, 0) for token in tokens]  # also where its scores are no numbers: a wrong guess does no harm
