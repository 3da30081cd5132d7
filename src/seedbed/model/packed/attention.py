"""Attention by kernels: queries, keys and values in one product; norming, turning, storing and reading in one call.

Shape suffixes: B batch, T positions, D model width, E all heads of queries, keys and values beside one another.
"""

from __future__ import annotations

from torch import Tensor, nn

from seedbed.model.attention import Attention
from seedbed.model.attention_paths.path import Attend
from seedbed.model.cache import PagedLayer
from seedbed.model.norms import RMSNorm
from seedbed.model.packed.linears import Packed
from seedbed.model.positions import Angles


class PackedAttention(Attention):
    """What Attention computes. Outside the engine, and with values or norms that the kernel has not, heads take the
    plain way."""

    output: nn.Module  # type: ignore[assignment]  # a packed one

    def __init__(self, plain: Attention, projections: Packed, output: nn.Module):
        nn.Module.__init__(self)
        self.head_width, self.projections, self.output = plain.head_width, projections, output
        self.query_norm, self.key_norm, self.value_gate = plain.query_norm, plain.key_norm, plain.value_gate
        self.sizes = [layer.out_features for layer in (plain.query, plain.key, plain.value)]

    def place(self, layer: str) -> tuple[str, int]:
        """Which of ours computes a plain one's layer, and from which of its outputs on."""
        before = ("query", "key", "value", "output").index(layer)
        return ("projections", sum(self.sizes[:before])) if layer != "output" else ("output", 0)

    def project(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.projections(x_BTD).split(self.sizes, dim=-1)
        return q, k, v

    def forward(
        self,
        x_BTD: Tensor,
        angles: Angles | None,
        attend: Attend,
        values_BTE: Tensor | None = None,
    ) -> Tensor:
        has_kernel = values_BTE is None and isinstance(self.query_norm, RMSNorm | nn.Identity)
        if has_kernel and isinstance(attend, PagedLayer) and attend.by_kernel:
            return self.output(attend.attend(*self.project(x_BTD), self.query_norm, self.key_norm, angles))
        return super().forward(x_BTD, angles, attend, values_BTE)
