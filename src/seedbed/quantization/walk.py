"""Sample text on its way through a model, one part after the other: each part reads what the parts before it, rounded
by then, make of the text (Frantar et al. 2022, arXiv:2210.17323, §4).

Shape suffixes: N rows of text, T positions, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seedbed.model.cross_entropy import rows_at_once
from seedbed.model.transformer import Transformer

ROWS = 8
"""Of text, that go through a part at once."""


@dataclass
class Part:
    """A block, or what stands behind the last one. Its layers are replaced while the walk waits."""

    name: str
    """How the names of its layers begin."""
    compute: Callable[[], list[Tensor]]
    outputs: list[Tensor] | None = None

    def run(self) -> None:
        """All of the text through it; what comes out is what the next part reads."""
        self.outputs = self.compute()


def walk(model: Transformer, tokens_NT: Tensor) -> Iterator[Part]:
    """The parts of a model in order. Each must have been run, once it is as it is to be, before the next is asked for.

    A layer's inputs are seen by hooks.
    """
    batches = [_given(model, some_NT) for some_NT in tokens_NT.split(ROWS)]
    streams = [given.embedding_NTD for given in batches]
    for number, (block, skip) in enumerate(zip(model.blocks, model.skips, strict=True)):
        read = [skip(x_NTD, given.embedding_NTD) for x_NTD, given in zip(streams, batches, strict=True)]
        beside = [given.beside[number] for given in batches]

        def through(block: nn.Module = block, read: list[Tensor] = read, beside: list[Any] = beside) -> list[Tensor]:
            return [block(x_NTD, *given) for x_NTD, given in zip(read, beside, strict=True)]

        part = Part(f"blocks.{number}.", through)
        yield part
        assert part.outputs is not None  # it was run
        streams = part.outputs
    size = rows_at_once(model.config.vocab_size, model.config.width)

    def scores() -> list[Tensor]:
        for x_NTD in streams:
            for some_ND in model.final_norm(x_NTD).flatten(0, 1).split(size):
                model.logits(some_ND)
        return []  # nobody reads them, and there are many

    yield Part("head", scores)


@dataclass(frozen=True)
class _Given:
    embedding_NTD: Tensor
    beside: list[tuple[Any, ...]]
    """What each block is given beside the residual stream."""


@torch.no_grad()
def _given(model: Transformer, tokens_NT: Tensor) -> _Given:
    """Everything that blocks read of some rows and that no block makes."""
    beside: list[tuple[Any, ...]] = []
    embeddings: list[Tensor] = []
    hooks = [block.register_forward_pre_hook(lambda _, given: beside.append(given[1:])) for block in model.blocks]
    hooks.append(model.skips[0].register_forward_pre_hook(lambda _, given: embeddings.append(given[1])))
    try:
        model.hidden(tokens_NT)
    finally:
        for hook in hooks:
            hook.remove()
    return _Given(embeddings[0], beside)
