"""The one mapping of weights to and from other frameworks.

Each row of a table says which weights of ours, in which order and layout, lie in one weight of the Hugging Face class;
`{n}` stands for the number of the block. A bias lies as its matrix does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Shape = tuple[int, ...]


class Layout:
    """Rows of output features, one weight after the other."""

    def join(self, parts: Sequence[Tensor], head_width: int) -> Tensor:
        """Their weight, made of ours."""
        return parts[0] if len(parts) == 1 else torch.cat(list(parts))

    def split(self, whole: Tensor, shapes: Sequence[Shape], head_width: int) -> list[Tensor]:
        """Ours, of these shapes, taken out of theirs, each in memory of its own."""
        if len(shapes) == 1:
            return [whole]
        return [part.clone() for part in whole.split([shape[0] for shape in shapes])]


class Transposed(Layout):
    """Columns of output features: GPT-2's Conv1D."""

    def join(self, parts: Sequence[Tensor], head_width: int) -> Tensor:
        return super().join(parts, head_width).t()

    def split(self, whole: Tensor, shapes: Sequence[Shape], head_width: int) -> list[Tensor]:
        return super().split(whole.t().contiguous(), shapes, head_width)


class ByHead(Layout):
    """The rows of each head side by side: query, key and value of the first, then of the second (GPT-NeoX)."""

    def join(self, parts: Sequence[Tensor], head_width: int) -> Tensor:
        return torch.stack([part.unflatten(0, (-1, head_width)) for part in parts], dim=1).flatten(0, 2)

    def split(self, whole: Tensor, shapes: Sequence[Shape], head_width: int) -> list[Tensor]:
        heads = whole.unflatten(0, (-1, len(shapes), head_width))
        return [part.flatten(0, 1).clone() for part in heads.unbind(1)]


ROWS, TRANSPOSED, BY_HEAD = Layout(), Transposed(), ByHead()


@dataclass(frozen=True)
class Row:
    """One weight of theirs."""

    ours: tuple[str, ...]
    theirs: str
    layout: Layout = ROWS


Table = tuple[Row, ...]


def _row(ours: str, theirs: str, layout: Layout = ROWS) -> tuple[Row, Row]:
    """Of a module's weight, and of its bias; several of ours stand with commas between."""
    weight, bias = ([f"{module}.{kind}" for module in ours.split(", ")] for kind in ("weight", "bias"))
    return Row(tuple(weight), f"{theirs}.weight", layout), Row(tuple(bias), f"{theirs}.bias", layout)


LLAMA: Table = (
    *_row("embedding", "model.embed_tokens"),
    *_row("blocks.{n}.attention_norm", "model.layers.{n}.input_layernorm"),
    *_row("blocks.{n}.attention.query", "model.layers.{n}.self_attn.q_proj"),
    *_row("blocks.{n}.attention.key", "model.layers.{n}.self_attn.k_proj"),
    *_row("blocks.{n}.attention.value", "model.layers.{n}.self_attn.v_proj"),
    *_row("blocks.{n}.attention.output", "model.layers.{n}.self_attn.o_proj"),
    *_row("blocks.{n}.feedforward_norm", "model.layers.{n}.post_attention_layernorm"),
    *_row("blocks.{n}.feedforward.gate", "model.layers.{n}.mlp.gate_proj"),
    *_row("blocks.{n}.feedforward.up", "model.layers.{n}.mlp.up_proj"),
    *_row("blocks.{n}.feedforward.down", "model.layers.{n}.mlp.down_proj"),
    *_row("final_norm", "model.norm"),
    *_row("head", "lm_head"),
)
"""Arcee's too, which has no gate."""

QWEN3: Table = (
    *LLAMA,
    *_row("blocks.{n}.attention.query_norm", "model.layers.{n}.self_attn.q_norm"),
    *_row("blocks.{n}.attention.key_norm", "model.layers.{n}.self_attn.k_norm"),
)

QKV = "blocks.{n}.attention.query, blocks.{n}.attention.key, blocks.{n}.attention.value"

GPT2: Table = (
    *_row("embedding", "transformer.wte"),
    *_row("positions.table", "transformer.wpe"),
    *_row("blocks.{n}.attention_norm", "transformer.h.{n}.ln_1"),
    *_row(QKV, "transformer.h.{n}.attn.c_attn", TRANSPOSED),
    *_row("blocks.{n}.attention.output", "transformer.h.{n}.attn.c_proj", TRANSPOSED),
    *_row("blocks.{n}.feedforward_norm", "transformer.h.{n}.ln_2"),
    *_row("blocks.{n}.feedforward.up", "transformer.h.{n}.mlp.c_fc", TRANSPOSED),
    *_row("blocks.{n}.feedforward.down", "transformer.h.{n}.mlp.c_proj", TRANSPOSED),
    *_row("final_norm", "transformer.ln_f"),
    *_row("head", "lm_head"),
)

GPT_NEOX: Table = (
    *_row("embedding", "gpt_neox.embed_in"),
    *_row("blocks.{n}.attention_norm", "gpt_neox.layers.{n}.input_layernorm"),
    *_row(QKV, "gpt_neox.layers.{n}.attention.query_key_value", BY_HEAD),
    *_row("blocks.{n}.attention.output", "gpt_neox.layers.{n}.attention.dense"),
    *_row("blocks.{n}.feedforward_norm", "gpt_neox.layers.{n}.post_attention_layernorm"),
    *_row("blocks.{n}.feedforward.up", "gpt_neox.layers.{n}.mlp.dense_h_to_4h"),
    *_row("blocks.{n}.feedforward.down", "gpt_neox.layers.{n}.mlp.dense_4h_to_h"),
    *_row("final_norm", "gpt_neox.final_layer_norm"),
    *_row("head", "embed_out"),
)

OWN: Table = ()
"""Of an architecture that no other framework has: every weight keeps its name."""


def to_theirs(weights: Mapping[str, Tensor], table: Table, head_width: int) -> dict[str, Tensor]:
    """Weights by our names → by theirs. KeyError for one without a counterpart is a bug of ours."""
    return {
        theirs: row.layout.join([weights[name] for name in ours], head_width)
        for theirs, (row, ours) in _pairs(weights, table).items()
    }


def shapes_of_theirs(shapes: Mapping[str, Shape], table: Table, head_width: int) -> dict[str, Shape]:
    """Shapes by our names → by theirs."""
    found = {}
    for theirs, (row, ours) in _pairs(shapes, table).items():
        parts = [torch.empty(shapes[name], device="meta") for name in ours]
        found[theirs] = tuple(row.layout.join(parts, head_width).shape)
    return found


def to_ours(
    weights: Mapping[str, Tensor], shapes: Mapping[str, Shape], table: Table, head_width: int
) -> dict[str, Tensor]:
    """Weights by their names → by ours, which have these shapes."""
    found: dict[str, Tensor] = {}
    for theirs, (row, ours) in _pairs(shapes, table).items():
        parts = row.layout.split(weights[theirs], [shapes[name] for name in ours], head_width)
        found |= dict(zip(ours, parts, strict=True))
    return found


def _pairs(names: Iterable[str], table: Table) -> dict[str, tuple[Row, list[str]]]:
    """Each weight of theirs: its row, and the names of ours that lie in it."""
    if table is OWN:
        return {name: (Row((name,), name), [name]) for name in names}
    rows = {pattern: row for row in table for pattern in row.ours}
    pairs = {}
    for name in names:
        number = re.search(r"\.(\d+)\.", name)
        n = number[1] if number else ""
        row = rows[re.sub(r"\.\d+\.", ".{n}.", name, count=1)]
        pairs[row.theirs.format(n=n)] = (row, [pattern.format(n=n) for pattern in row.ours])
    return pairs
