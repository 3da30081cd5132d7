"""Sample text on its way through a model, one part after the other: each part reads what the parts before it, rounded
by then, make of the text (Frantar et al. 2022, arXiv:2210.17323, §4).

Shape suffixes: N rows of text, T positions, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from seedbed.model.cross_entropy import rows_at_once
from seedbed.model.transformer import Transformer

ROWS = 8
"""Of text, that go through a part at once."""


@dataclass
class Part:
    """A block, or what stands behind the last one. Its layers are replaced while the walk waits."""

    name: str
    """How the names of its layers begin."""
    batches: list[Callable[[], Tensor]]
    """Some of the text through it, each."""
    outputs: list[Tensor] | None = None

    def run(self) -> None:
        """All of the text through it; what comes out is what the next part reads."""
        self.outputs = [batch() for batch in self.batches]


def walk(model: Transformer, tokens_NT: Tensor) -> Iterator[Part]:
    """The parts of a model in order. Each must have been run, once it is as it is to be, before the next is asked for.

    A layer's inputs are seen by hooks.
    """
    batches = [_given(model, some_NT) for some_NT in tokens_NT.split(ROWS)]
    streams = [given.embedding_NTD for given in batches]
    for number, (block, skip) in enumerate(zip(model.blocks, model.skips, strict=True)):
        read = [skip(x_NTD, given.embedding_NTD) for x_NTD, given in zip(streams, batches, strict=True)]
        part = Part(
            f"blocks.{number}.",
            [partial(block, x_NTD, *given.beside[number]) for x_NTD, given in zip(read, batches, strict=True)],
        )
        yield part
        assert part.outputs is not None  # it was run
        streams = part.outputs
    size = rows_at_once(model.config.vocab_size, model.config.width)

    def scores(x_ND: Tensor) -> Tensor:
        model.logits(x_ND)
        return x_ND  # of the scores themselves there are many, and nobody reads them

    pieces = (some_ND for x_NTD in streams for some_ND in model.final_norm(x_NTD).flatten(0, 1).split(size))
    yield Part("head", [partial(scores, some_ND) for some_ND in pieces])


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
