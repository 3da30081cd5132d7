"""Self-attention with grouped queries.

Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245, §2.2): H query heads share G key/value heads.
Queries and keys may be normalised per head before they are turned (Henry et al. 2020, arXiv:2010.04245; Qwen3).

Shape suffixes: B batch, T query positions, S key positions, D model width, H query heads, G key/value heads, K head
width, E = G·K.
"""

from __future__ import annotations

from torch import Tensor, nn

from seedbed.model.attention_paths.path import Attend
from seedbed.model.config import ModelConfig
from seedbed.model.linears.linear import Linear
from seedbed.model.norms import build_norm
from seedbed.model.positions import Angles, rotate
from seedbed.model.recipes import remade
from seedbed.model.skips import ValueGate


class Attention(nn.Module):
    """Each position reads from the positions that it may see."""

    def __init__(self, config: ModelConfig, layer: int = 0):
        super().__init__()
        self.head_width = config.head_width
        bias = config.attention_bias
        self.query = Linear(config.width, config.heads * config.head_width, bias=bias)
        self.key = Linear(config.width, config.kv_heads * config.head_width, bias=bias)
        self.value = Linear(config.width, config.kv_heads * config.head_width, bias=bias)
        self.output = Linear(config.heads * config.head_width, config.width, bias=bias and config.attention_output_bias)
        self.query_norm = build_norm(config.head_width, config) if config.qk_norm else nn.Identity()
        self.key_norm = build_norm(config.head_width, config) if config.qk_norm else nn.Identity()
        self.value_gate = ValueGate(config) if config.has_value_embedding(layer) else None

    def forward(
        self,
        x_BTD: Tensor,
        angles: Angles | None,
        attend: Attend,
        values_BTE: Tensor | None = None,
    ) -> Tensor:
        q_BHTK, k_BGTK, v_BGTK = map(self.split_heads, self.project(x_BTD))
        q_BHTK = remade(rotate, remade(self.query_norm, q_BHTK), angles)
        k_BGTK = remade(rotate, remade(self.key_norm, k_BGTK), angles)
        if self.value_gate is not None and values_BTE is not None:
            v_BGTK = v_BGTK + self.value_gate(self.split_heads(values_BTE), x_BTD)
        out_BHTK = attend(q_BHTK, k_BGTK, v_BGTK)
        return self.output(out_BHTK.transpose(1, 2).flatten(2))

    def project(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, all heads beside one another."""
        return self.query(x_BTD), self.key(x_BTD), self.value(x_BTD)

    def split_heads(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(-1, (-1, self.head_width)).transpose(1, 2)
