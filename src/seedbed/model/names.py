"""The one mapping of weight names to and from other frameworks.

Each row pairs our name with the name in the Hugging Face class; `{n}` stands for the number of the block.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

QWEN3 = (
    ("embedding.weight", "model.embed_tokens.weight"),
    ("blocks.{n}.attention_norm.weight", "model.layers.{n}.input_layernorm.weight"),
    ("blocks.{n}.attention.query.weight", "model.layers.{n}.self_attn.q_proj.weight"),
    ("blocks.{n}.attention.key.weight", "model.layers.{n}.self_attn.k_proj.weight"),
    ("blocks.{n}.attention.value.weight", "model.layers.{n}.self_attn.v_proj.weight"),
    ("blocks.{n}.attention.output.weight", "model.layers.{n}.self_attn.o_proj.weight"),
    ("blocks.{n}.attention.query_norm.weight", "model.layers.{n}.self_attn.q_norm.weight"),
    ("blocks.{n}.attention.key_norm.weight", "model.layers.{n}.self_attn.k_norm.weight"),
    ("blocks.{n}.feedforward_norm.weight", "model.layers.{n}.post_attention_layernorm.weight"),
    ("blocks.{n}.feedforward.gate.weight", "model.layers.{n}.mlp.gate_proj.weight"),
    ("blocks.{n}.feedforward.up.weight", "model.layers.{n}.mlp.up_proj.weight"),
    ("blocks.{n}.feedforward.down.weight", "model.layers.{n}.mlp.down_proj.weight"),
    ("final_norm.weight", "model.norm.weight"),
    ("head.weight", "lm_head.weight"),
)


def to_huggingface(names: Iterable[str]) -> dict[str, str]:
    """Our names → those of the Hugging Face class. KeyError for a name without a counterpart is a bug of ours."""
    table = dict(QWEN3)
    return {name: _renamed(name, table) for name in names}


def from_huggingface(names: Iterable[str]) -> dict[str, str]:
    """Names of the Hugging Face class → ours; a name that we have no place for maps to itself."""
    table = {theirs: ours for ours, theirs in QWEN3}
    return {name: _renamed(name, table) if _pattern(name) in table else name for name in names}


def _pattern(name: str) -> str:
    return re.sub(r"\.\d+\.", ".{n}.", name, count=1)


def _renamed(name: str, table: dict[str, str]) -> str:
    number = re.search(r"\.(\d+)\.", name)
    return table[_pattern(name)].format(n=number[1] if number else "")
