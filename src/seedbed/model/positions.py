"""How a model knows the order of its tokens.

- rotary embedding (Su et al. 2021, arXiv:2104.09864, §3.2.2), stretched or not (`rope_scaling`)
- learned vectors (Gehring et al. 2017, arXiv:1705.03122, §3.1; GPT-2), sinusoids (Vaswani et al. 2017,
  arXiv:1706.03762, §3.5), both added to the embeddings
- none: the causal mask alone tells it (Haviv et al. 2022, arXiv:2203.16634); ALiBi is part of the mask

RoPE pairs coordinate i of a head with coordinate i + K/2 and turns the pair by the angle position · base^(−2i/K):
the "rotate-half" pairing of the Hugging Face classes, so that weights pass to and from them unchanged.

Shape suffixes: B batch, H heads, T positions, D model width, K head width, S positions in the table, C its parts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seedbed.model.config import ModelConfig
from seedbed.model.rope_scaling import rotary_frequencies, yarn_temperature

Angles = tuple[Tensor, Tensor]
"""Cosines and signed sines of the positions of one forward pass, ready to broadcast over heads."""

ROWS = 1024
"""Positions that are added to the table at once. Always whole groups, so that an angle has the same bits however long
the table is."""


class Positions(nn.Module):
    """Says nothing of positions: what the others begin from."""

    def place(self, x_BTD: Tensor, length: int, positions_BT: Tensor | None = None) -> Tensor:
        """Embeddings that know their positions: 0 … length − 1, or the given ones, all < length."""
        return x_BTD

    def angles(
        self, length: int, positions_BT: Tensor | None = None, *, device: torch.device | str = "cpu"
    ) -> Angles | None:
        """What to hand to `rotate`: of positions 0 … length − 1, or of the given ones, all < length. None: no turn."""
        return None


class LearnedPositions(Positions):
    """A learned vector for each position of the context."""

    def __init__(self, context: int, width: int):
        super().__init__()
        self.table = nn.Embedding(context, width)

    def place(self, x_BTD: Tensor, length: int, positions_BT: Tensor | None = None) -> Tensor:
        if positions_BT is None:
            return x_BTD + self.table.weight[:length]
        return x_BTD + self.table(positions_BT)


class TabledPositions(Positions):
    """Positions that follow from a formula.

    The table grows with the longest sequence seen: a context of a million costs nothing before it is used. It is no
    buffer, because it stays in fp32 when the weights become bf16: bf16 cannot tell position 257 from 256.
    """

    def __init__(self, parts: int, width: int):
        super().__init__()
        self.table_CSK = torch.empty(parts, 0, width, device="cpu")

    def formula(self, positions_S: Tensor) -> Tensor:
        """Rows (C, S, K) of the table, from positions in fp64 on the CPU: not every device has fp64."""
        raise NotImplementedError  # each kind of position has its own

    def rows(self, length: int, positions_BT: Tensor | None, device: torch.device | str) -> tuple[Tensor, ...]:
        """Each part of the table for positions 0 … length − 1 (S, K), or for the given ones (B, T, K)."""
        if length > self.table_CSK.shape[1] or self.table_CSK.device != torch.device(device):
            self.table_CSK = self._grown(max(length, self.table_CSK.shape[1]), device)
        if positions_BT is None:
            return tuple(part_SK[:length] for part_SK in self.table_CSK)
        return tuple(part_SK[positions_BT] for part_SK in self.table_CSK)

    @torch.inference_mode(False)  # the table made while generating must serve training too
    def _grown(self, length: int, device: torch.device | str) -> Tensor:
        table_CSK = self.table_CSK.cpu()
        groups = range(table_CSK.shape[1], length, ROWS)
        added = [self.formula(torch.arange(first, first + ROWS, dtype=torch.float64)).float() for first in groups]
        return torch.cat([table_CSK, *added], dim=1).to(device)


class SinusoidalPositions(TabledPositions):
    """Sine and cosine of position · 10000^(−2i/D), side by side, added to the embeddings.

    Scaled by what fresh embeddings are drawn with, so that the two keep the paper's proportion: there embeddings of
    spread D^−½ are multiplied by √D.
    """

    def __init__(self, width: int, scale: float):
        super().__init__(1, width)
        self.width = width
        self.scale = scale

    def formula(self, positions_S: Tensor) -> Tensor:
        frequencies = 10_000.0 ** (-torch.arange(0, self.width, 2, dtype=torch.float64) / self.width)
        angles = positions_S[:, None] * frequencies
        return self.scale * torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None, :, : self.width]

    def place(self, x_BTD: Tensor, length: int, positions_BT: Tensor | None = None) -> Tensor:
        (sinusoids,) = self.rows(length, positions_BT, x_BTD.device)
        return x_BTD + sinusoids.to(x_BTD.dtype)


class RotaryPositions(TabledPositions):
    """Turns queries and keys by their positions."""

    def __init__(self, head_width: int, base: float, *, frequencies: Tensor | None = None, temperature: float = 1.0):
        """`frequencies` (K/2), in fp64: left out, base^(−2i/K). Cosines and sines are multiplied by `temperature`, and
        attention scores so by its square (YaRN, §3.4)."""
        super().__init__(2, head_width)
        self.frequencies = rotary_frequencies(head_width, base) if frequencies is None else frequencies
        self.temperature = temperature

    def formula(self, positions_S: Tensor) -> Tensor:
        angles = positions_S[:, None] * self.frequencies
        cosine, sine = self.temperature * angles.cos(), self.temperature * angles.sin()
        # The sign of rotate-half is folded into the sine: one roll instead of a negation and a concatenation.
        return torch.stack([torch.cat([cosine, cosine], dim=-1), torch.cat([-sine, sine], dim=-1)])

    def angles(self, length: int, positions_BT: Tensor | None = None, *, device: torch.device | str = "cpu") -> Angles:
        cosine, sine = self.rows(length, positions_BT, device)
        return (cosine, sine) if positions_BT is None else (cosine[:, None], sine[:, None])


def rotate(x_BHTK: Tensor, angles: Angles | None) -> Tensor:
    """Each pair of coordinates turned by the angle of its position, computed in the precision of the angles."""
    if angles is None:
        return x_BHTK
    cosine, sine = angles
    return (x_BHTK * cosine + x_BHTK.roll(x_BHTK.shape[-1] // 2, dims=-1) * sine).to(x_BHTK.dtype)


def build_positions(config: ModelConfig) -> Positions:
    """The positions of a resolved config."""
    if config.positions == "learned":
        return LearnedPositions(config.context, config.width)
    if config.positions == "sinusoidal":
        return SinusoidalPositions(config.width, config.embedding_std)
    if config.positions == "rope":
        temperature = yarn_temperature(config.rope_factor) if config.rope_scaling == "yarn" else 1.0
        frequencies = rotary_frequencies(
            config.head_width,
            config.rope_base,
            config.rope_scaling,
            factor=config.rope_factor,
            original_context=config.rope_original_context,
        )
        return RotaryPositions(config.head_width, config.rope_base, frequencies=frequencies, temperature=temperature)
    return Positions()
