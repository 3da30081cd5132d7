"""The one mapping of weights to and from other frameworks.

Each row of a table says which weights of ours, in which order and layout, lie in one weight of the Hugging Face class;
`{n}` stands for the number of the block, `{e}` for that of an expert: theirs are matrices apart, ours a stack. A bias
lies as its matrix does.
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
        return self.join_outputs(parts, head_width)

    def join_outputs(self, parts: Sequence[Tensor], head_width: int) -> Tensor:
        """The same of what has a row for each output, however their weight lies."""
        return parts[0] if len(parts) == 1 else torch.cat(list(parts))

    def split(self, whole: Tensor, shapes: Sequence[Shape], head_width: int) -> list[Tensor]:
        """Ours, of these shapes, taken out of theirs, each in memory of its own."""
        return self.split_outputs(whole, [shape[0] for shape in shapes], head_width)

    def split_outputs(self, whole: Tensor, sizes: Sequence[int], head_width: int) -> list[Tensor]:
        """The same of what has a row for each output, so many of each of ours, however their weight lies."""
        return [whole] if len(sizes) == 1 else [part.clone() for part in whole.split(list(sizes))]


class Transposed(Layout):
    """Columns of output features: GPT-2's Conv1D."""

    def join(self, parts: Sequence[Tensor], head_width: int) -> Tensor:
        return super().join(parts, head_width).t()

    def split(self, whole: Tensor, shapes: Sequence[Shape], head_width: int) -> list[Tensor]:
        return super().split(whole.t().contiguous(), shapes, head_width)


class ByHead(Layout):
    """The rows of each head side by side: query, key and value of the first, then of the second (GPT-NeoX)."""

    def join_outputs(self, parts: Sequence[Tensor], head_width: int) -> Tensor:
        return torch.stack([part.unflatten(0, (-1, head_width)) for part in parts], dim=1).flatten(0, 2)

    def split_outputs(self, whole: Tensor, sizes: Sequence[int], head_width: int) -> list[Tensor]:
        heads = whole.unflatten(0, (-1, len(sizes), head_width))
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
    *_row("score", "score"),
)
"""Arcee's too, which has no gate."""

QWEN3: Table = (
    *LLAMA,
    *_row("blocks.{n}.attention.query_norm", "model.layers.{n}.self_attn.q_norm"),
    *_row("blocks.{n}.attention.key_norm", "model.layers.{n}.self_attn.k_norm"),
)

MIXTRAL: Table = (
    *LLAMA,
    *_row("blocks.{n}.feedforward.router", "model.layers.{n}.block_sparse_moe.gate"),
    *_row("blocks.{n}.feedforward.gate.{e}", "model.layers.{n}.block_sparse_moe.experts.{e}.w1"),
    *_row("blocks.{n}.feedforward.up.{e}", "model.layers.{n}.block_sparse_moe.experts.{e}.w3"),
    *_row("blocks.{n}.feedforward.down.{e}", "model.layers.{n}.block_sparse_moe.experts.{e}.w2"),
)

QWEN3_MOE: Table = (
    *QWEN3,
    *_row("blocks.{n}.feedforward.router", "model.layers.{n}.mlp.gate"),
    *_row("blocks.{n}.feedforward.gate.{e}", "model.layers.{n}.mlp.experts.{e}.gate_proj"),
    *_row("blocks.{n}.feedforward.up.{e}", "model.layers.{n}.mlp.experts.{e}.up_proj"),
    *_row("blocks.{n}.feedforward.down.{e}", "model.layers.{n}.mlp.experts.{e}.down_proj"),
)

DOTS1: Table = (
    *QWEN3_MOE,
    Row(("blocks.{n}.feedforward.router.bias",), "model.layers.{n}.mlp.gate.e_score_correction_bias"),
    *_row("blocks.{n}.feedforward.shared.gate", "model.layers.{n}.mlp.shared_experts.gate_proj"),
    *_row("blocks.{n}.feedforward.shared.up", "model.layers.{n}.mlp.shared_experts.up_proj"),
    *_row("blocks.{n}.feedforward.shared.down", "model.layers.{n}.mlp.shared_experts.down_proj"),
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
    *_row("score", "score"),
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
    *_row("score", "score"),
)

OWN: Table = ()
"""Of an architecture that no other framework has: every weight keeps its name."""


def to_theirs(weights: Mapping[str, Tensor], table: Table, head_width: int) -> dict[str, Tensor]:
    """Weights by our names → by theirs. KeyError for one without a counterpart is a bug of ours."""
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    parts: dict[str, Tensor] = {}
    for name, apart in _apart(shapes, table).items():
        parts |= dict(zip(apart, weights[name].unbind() if apart != [name] else [weights[name]], strict=True))
    return {
        theirs: row.layout.join([parts[name] for name in ours], head_width)
        for theirs, (row, ours) in _pairs(parts, table).items()
    }


def shapes_of_theirs(shapes: Mapping[str, Shape], table: Table, head_width: int) -> dict[str, Shape]:
    """Shapes by our names → by theirs."""
    found = {}
    shapes = _shapes_apart(shapes, table)
    for theirs, (row, ours) in _pairs(shapes, table).items():
        parts = [torch.empty(shapes[name], device="meta") for name in ours]
        found[theirs] = tuple(row.layout.join(parts, head_width).shape)
    return found


def to_ours(
    weights: Mapping[str, Tensor], shapes: Mapping[str, Shape], table: Table, head_width: int
) -> dict[str, Tensor]:
    """Weights by their names → by ours, which have these shapes."""
    found: dict[str, Tensor] = {}
    shapes_apart = _shapes_apart(shapes, table)
    for theirs, (row, ours) in _pairs(shapes_apart, table).items():
        parts = row.layout.split(weights[theirs], [shapes_apart[name] for name in ours], head_width)
        found |= dict(zip(ours, parts, strict=True))
    return {
        name: torch.stack([found[part] for part in apart]) if apart != [name] else found[name]
        for name, apart in _apart(shapes, table).items()
    }


def layers_of_theirs(shapes: Mapping[str, Shape], table: Table) -> dict[str, tuple[Layout, list[str]]]:
    """Each weight of theirs, of ours with these shapes: how and which of ours lie in it."""
    pairs = _pairs(_shapes_apart(shapes, table), table)
    return {theirs: (row.layout, ours) for theirs, (row, ours) in pairs.items()}


def _apart(shapes: Mapping[str, Shape], table: Table) -> dict[str, list[str]]:
    """Each weight of ours: the names of its matrices, one an expert; its own name alone where it is no stack."""
    names = {}
    for name, shape in shapes.items():
        module, _, kind = name.rpartition(".")
        is_stack = len(shape) == 3 and table is not OWN
        names[name] = [f"{module}.{expert}.{kind}" for expert in range(shape[0])] if is_stack else [name]
    return names


def _shapes_apart(shapes: Mapping[str, Shape], table: Table) -> dict[str, Shape]:
    apart = _apart(shapes, table)
    return {part: shapes[name] if part == name else shapes[name][1:] for name in shapes for part in apart[name]}


def _pairs(names: Iterable[str], table: Table) -> dict[str, tuple[Row, list[str]]]:
    """Each weight of theirs: its row, and the names of ours that lie in it."""
    if table is OWN:
        return {name: (Row((name,), name), [name]) for name in names}
    rows = {pattern: row for row in table for pattern in row.ours}
    pairs = {}
    for name in names:
        numbers = dict(zip("ne", re.findall(r"\.(\d+)(?=\.)", name), strict=False))
        pattern = name
        for letter, number in numbers.items():
            pattern = pattern.replace(f".{number}.", f".{{{letter}}}.", 1)
        row = rows[pattern]
        pairs[row.theirs.format(**numbers)] = (row, [ours.format(**numbers) for ours in row.ours])
    return pairs


def their_name(layer: str, table: Table) -> str:
    """The name of the weight of a layer of ours that is a weight of theirs by itself."""
    (name,) = _pairs([f"{layer}.weight"], table)
    return name
