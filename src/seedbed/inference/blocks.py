"""Which blocks of the cache are free, which are held, and which are kept for whoever begins alike.

A full block has a name that says all tokens up to its end. Whoever begins with the same tokens finds it and shares it,
instead of computing it again (Zheng et al. 2024, arXiv:2312.07104, by a tree; here, as in vLLM, by hashes).
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence

from seedbed.model.cache import BLOCK


def block_names(tokens: Sequence[int], salt: bytes = b"") -> list[bytes]:
    """Of each full block of a text: equal for equal beginnings only. `salt` tells apart what must not be shared, such
    as the texts of two tenants or the keys of two adapters."""
    names, name = [], hashlib.sha256(salt).digest()
    for first in range(0, len(tokens) // BLOCK * BLOCK, BLOCK):
        name = hashlib.sha256(name + array("q", tokens[first : first + BLOCK]).tobytes()).digest()
        names.append(name)
    return names


class Blocks:
    """Blocks by number."""

    def __init__(self, count: int):
        self.holders = [0] * count
        """How many sequences hold each."""
        self._free = list(range(count - 1, -1, -1))
        self._named: dict[bytes, int] = {}
        self._names: dict[int, bytes] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        """Named, and held by nobody; the one that was let go first stands first."""

    @property
    def count(self) -> int:
        return len(self.holders)

    @property
    def available(self) -> int:
        """Free ones, and those that are kept for nobody in particular."""
        return len(self._free) + len(self._idle)

    def take(self) -> int | None:
        """A block to write; None when every one is held. Of those that are kept the oldest goes."""
        if self._free:
            block = self._free.pop()
        elif self._idle:
            block, _ = self._idle.popitem(last=False)
            del self._named[self._names.pop(block)]
        else:
            return None
        self.holders[block] = 1
        return block

    def share(self, name: bytes) -> int | None:
        """The block of that name, to read; None when there is none."""
        block = self._named.get(name)
        if block is not None:
            self._idle.pop(block, None)
            self.holders[block] += 1
        return block

    def hold(self, blocks: Sequence[int]) -> None:
        """One sequence more holds them: one that goes on from where another stands."""
        for block in blocks:
            self.holders[block] += 1

    def keep(self, block: int, name: bytes) -> None:
        """The block, now full, can be found by that name, unless another one already can."""
        if name not in self._named and block not in self._names:
            self._named[name] = block
            self._names[block] = name

    def release(self, blocks: Sequence[int]) -> None:
        """A sequence lets its blocks go. The last of them are needed least, and so are the first to be taken."""
        for block in reversed(blocks):
            self.holders[block] -= 1
            if not self.holders[block]:
                if block in self._names:
                    self._idle[block] = None
                else:
                    self._free.append(block)
