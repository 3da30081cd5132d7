"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864, §3.2.2).

Coordinate i of a head is paired with coordinate i + K/2 and the pair is turned by the angle position · base^(−2i/K):
the "rotate-half" pairing of the Hugging Face classes, so that weights pass to and from them unchanged.

Shape suffixes: B batch, H heads, T positions, K head width, S the longest sequence.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

Angles = tuple[Tensor, Tensor]
"""Cosines and signed sines of the positions of one forward pass, ready to broadcast over heads."""


class RotaryPositions(nn.Module):
    """Turns queries and keys by their positions; the angles are computed once, up to the context."""

    cosine_SK: Tensor
    sine_SK: Tensor

    def __init__(self, head_width: int, context: int, base: float):
        super().__init__()
        frequencies = base ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
        angles = torch.arange(context, dtype=torch.float64)[:, None] * frequencies
        angles_SK = torch.cat([angles, angles], dim=-1)
        self.register_buffer("cosine_SK", angles_SK.cos().float(), persistent=False)
        # The sign of rotate-half is folded into the sine: one roll instead of a negation and a concatenation.
        sign_K = torch.cat([-torch.ones(head_width // 2), torch.ones(head_width // 2)])
        self.register_buffer("sine_SK", angles_SK.sin().float() * sign_K, persistent=False)

    def angles(self, length: int, positions_BT: Tensor | None) -> Angles:
        """Cosines and sines to hand to `rotate`: of positions 0 … length − 1, or of the given ones."""
        if positions_BT is None:
            return self.cosine_SK[:length], self.sine_SK[:length]
        return self.cosine_SK[positions_BT][:, None], self.sine_SK[positions_BT][:, None]


def rotate(x_BHTK: Tensor, angles: Angles) -> Tensor:
    """Each pair of coordinates turned by the angle of its position."""
    cosine, sine = angles
    return x_BHTK * cosine + x_BHTK.roll(x_BHTK.shape[-1] // 2, dims=-1) * sine
