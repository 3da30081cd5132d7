"""Whose tokens the next step computes.

One budget of tokens for a step: whoever decodes comes first, with one token each, then prompts in the order in which
they came, in pieces (Agrawal et al. 2024, arXiv:2403.02310). A long prompt so never stops those who are being answered.
When the cache is full the youngest gives its blocks back and is computed again later.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from seedbed.inference.blocks import Blocks, block_names
from seedbed.inference.generation import Generation
from seedbed.model.cache import BLOCK


@dataclass(frozen=True)
class Share:
    """What a step computes of one generation: its next `count` tokens."""

    generation: Generation
    count: int
    ahead: int = 0
    """Guesses of what follows them that there is room for."""

    @property
    def completes(self) -> bool:
        """Whether the next token can be chosen after it."""
        return self.generation.missing == self.count


class Scheduler:
    """Who waits, who runs, and which blocks they hold."""

    def __init__(self, blocks: Blocks, *, rows: int, step_tokens: int, window: int | None = None, guesses: int = 0):
        """At most `rows` run at once; a step computes at most `step_tokens` tokens, and at least one of each that
        decodes. `window`: positions that any layer sees, where all layers see only so many. `guesses`: tokens that are
        guessed at a time, at most."""
        self.blocks, self.rows, self.step_tokens, self.window = blocks, rows, step_tokens, window
        self.guesses = guesses
        self.waiting: deque[Generation] = deque()
        self.running: list[Generation] = []
        """Oldest first."""

    def add(self, generation: Generation) -> None:
        self.waiting.append(generation)

    def remove(self, generation: Generation) -> None:
        """It has ended, or is wanted no longer."""
        if generation in self.running:
            self.running.remove(generation)
            self.let_go(generation)
        elif generation in self.waiting:
            self.waiting.remove(generation)

    def late(self, now: float) -> list[Generation]:
        """Those whose time is over."""
        everyone = [*self.running, *self.waiting]
        return [each for each in everyone if each.deadline is not None and each.deadline <= now]

    def schedule(self) -> list[Share]:
        """The next step; empty when there is nothing to do."""
        shares: dict[Generation, int] = {}
        budget = self.step_tokens
        for decodes in (True, False):
            for generation in list(self.running):
                if generation not in self.running or (generation.missing == 1) != decodes:
                    continue  # it had to make room, or its turn is another
                count = 1 if decodes else min(generation.missing, budget)
                if count > 0 and self._make_room(generation, generation.computed + count, shares):
                    shares[generation] = count
                    budget -= count
        while self.waiting and len(self.running) < self.rows and budget > 0:
            generation = self.waiting[0]
            self.find_beginning(generation)
            if self._is_coming(generation):
                self.let_go(generation)
                break
            count = min(generation.missing, budget)
            needed = -(-(generation.computed + count) // BLOCK) - len(generation.blocks)
            if needed > self.blocks.available:
                self.let_go(generation)
                break
            self.waiting.popleft()
            self.running.append(generation)
            self._make_room(generation, generation.computed + count, shares)  # there is room
            shares[generation] = count
            budget -= count
        planned = []
        for generation, count in shares.items():
            ahead = self._room_ahead(generation, budget) if generation.missing == 1 else 0
            planned.append(Share(generation, count, ahead))
            budget -= ahead
        return planned

    def computed(self, generation: Generation, count: int) -> None:
        """So many tokens more were computed: blocks that are full now can be found by others."""
        generation.computed += count
        full = generation.computed // BLOCK
        if full > len(generation.names):
            generation.names = block_names(generation.tokens[: full * BLOCK], generation.salt)
        for number in range(generation.passed, full):
            self.blocks.keep(generation.blocks[number], generation.names[number])
        if self.window is not None:
            passed = max(generation.passed, (generation.computed - self.window + 1) // BLOCK)
            self.blocks.release(generation.blocks[generation.passed : passed])
            generation.passed = passed

    def find_beginning(self, generation: Generation) -> None:
        """Blocks that someone computed already. The last token is computed in any case: another follows from it."""
        full = (len(generation.tokens) - 1) // BLOCK
        if full > len(generation.names):
            generation.names = block_names(generation.tokens[: full * BLOCK], generation.salt)
        for name in generation.names[:full]:
            block = self.blocks.share(name)
            if block is None:
                break
            generation.blocks.append(block)
        generation.computed = len(generation.blocks) * BLOCK

    def _is_coming(self, generation: Generation) -> bool:
        """Whether someone is computing just what it needs next: waiting for it is cheaper than computing it twice."""
        missing = generation.names[len(generation.blocks) : (len(generation.tokens) - 1) // BLOCK]
        coming = {name for other in self.running for name in other.names[other.computed // BLOCK :]}
        return bool(missing) and missing[0] in coming

    def _make_room(self, generation: Generation, positions: int, shares: dict[Generation, int]) -> bool:
        """Blocks for so many positions, if need be those of the youngest; False when it is the youngest itself."""
        while len(generation.blocks) * BLOCK < positions:
            block = self.blocks.take()
            if block is not None:
                generation.blocks.append(block)
                continue
            youngest = self.running.pop()
            shares.pop(youngest, None)
            self.let_go(youngest)
            self.waiting.appendleft(youngest)
            if youngest is generation:
                return False
        return True

    def _room_ahead(self, generation: Generation, budget: int) -> int:
        """How many tokens to guess of one that decodes: for a guess nobody has to make room."""
        most = self.guesses if generation.ahead is None else generation.ahead
        ahead = max(min(most, budget, generation.limit - len(generation.tokens) - 1), 0)
        positions = generation.computed + 1
        while len(generation.blocks) * BLOCK < positions + ahead:
            block = self.blocks.take()
            if block is None:
                break
            generation.blocks.append(block)
        return min(ahead, len(generation.blocks) * BLOCK - positions)

    def let_go(self, generation: Generation) -> None:
        self.blocks.release(generation.blocks[generation.passed :])
        generation.blocks, generation.computed, generation.passed = [], 0, 0
