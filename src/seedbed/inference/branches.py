"""Several continuations of one prompt that are made side by side and share in the cache what they have in common.

A branch is a generation of its own. Where one goes on in several ways, all of them hold its blocks, and who is to write
into one that another holds, too, takes a copy. Only the last block of a sequence is ever written.

Shape suffixes: N tokens, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from seedbed.errors import BusyError, DataError
from seedbed.inference.generation import Generation
from seedbed.inference.scheduler import Share
from seedbed.model.cache import BLOCK

if TYPE_CHECKING:
    from seedbed.inference.engine import Engine


class Branches:
    """Those of one search. As a context it gives all their blocks back, however it ends."""

    def __init__(self, engine: Engine):
        self.engine, self.scheduler, self.blocks = engine, engine.scheduler, engine.scheduler.blocks
        self.alive: set[Generation] = set()

    def __enter__(self) -> Branches:
        return self

    def __exit__(self, *_: object) -> None:
        for branch in list(self.alive):
            self.drop(branch)

    def grow(self, first: Generation, *, most: int, apart: int) -> None:
        """`first` becomes a branch. There will be up to `most` at once, which may differ from position `apart` on.

        Raises DataError when the whole cache has too few blocks for that, BusyError when others hold too many.
        """
        self.alive.add(first)
        needed = self._most_blocks(first, most, apart)
        wanted = f"{most} continuations of {first.limit:,} tokens may need {needed:,} blocks of the cache"
        if needed > self.blocks.count:
            raise DataError(
                f"{wanted}, which has {self.blocks.count:,}",
                "Give fewer beams or max_tokens, or the engine more cache_tokens.",
            )
        if needed - len(first.blocks) > self.blocks.available:
            problem = f"{wanted}, of which {self.blocks.available:,} are free while others are being answered"
            raise BusyError(problem, "Ask again later.")

    def fork(self, branch: Generation) -> Generation:
        """Another one that stands where `branch` stands."""
        other = branch.fork()
        self.blocks.hold(other.blocks[other.passed :])
        self.alive.add(other)
        return other

    def drop(self, branch: Generation) -> None:
        """It is wanted no longer."""
        self.alive.discard(branch)
        self.scheduler.let_go(branch)

    def read(self, branches: Sequence[Generation]) -> Tensor:
        """One forward pass over what the branches have that the model has not read, of a prompt as much as a step
        takes: its normed residual stream (N, D), branch after branch."""
        shares = [Share(branch, min(branch.missing, self.scheduler.step_tokens)) for branch in branches]
        for share in shares:
            self._make_room(share)
        x_ND = self.engine.run(shares, [[]] * len(shares))
        for share in shares:
            self.scheduler.computed(share.generation, share.count)
        return x_ND

    def _make_room(self, share: Share) -> None:
        branch, last = share.generation, share.generation.computed // BLOCK
        if last < len(branch.blocks) and self.blocks.holders[shared := branch.blocks[last]] > 1:
            branch.blocks[last] = self._take()
            self.engine.cache.copy(shared, branch.blocks[last])
            self.blocks.release([shared])
        while len(branch.blocks) * BLOCK < branch.computed + share.count:
            branch.blocks.append(self._take())

    def _take(self) -> int:
        block = self.blocks.take()
        assert block is not None  # `grow` has seen to it
        return block

    def _most_blocks(self, first: Generation, most: int, apart: int) -> int:
        shared, whole = apart // BLOCK, -(-first.limit // BLOCK)
        needed = shared + most * (whole - shared)
        if (window := self.scheduler.window) is not None:  # what no layer sees any more is given back on the way
            prompt, answer = ((window + tokens) // BLOCK + 2 for tokens in (self.scheduler.step_tokens, 1))
            needed = min(needed, max(prompt, most * answer))
        return needed
