"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864, §3.2.2).

Coordinate i of a head is paired with coordinate i + K/2 and the pair is turned by the angle position · base^(−2i/K):
the "rotate-half" pairing of the Hugging Face classes, so that weights pass to and from them unchanged.

Shape suffixes: B batch, H heads, T positions, K head width, S positions in the table.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

Angles = tuple[Tensor, Tensor]
"""Cosines and signed sines of the positions of one forward pass, ready to broadcast over heads."""

ROWS = 1024
"""Positions that are added to the table at once. Always whole groups, so that an angle has the same bits however long
the table is."""


class RotaryPositions(nn.Module):
    """Turns queries and keys by their positions.

    The table of angles grows with the longest sequence seen: a context of a million costs nothing before it is used.
    It is no buffer, because it stays in fp32 when the weights become bf16: bf16 cannot tell position 257 from 256.
    """

    def __init__(self, head_width: int, base: float):
        super().__init__()
        self.head_width = head_width
        self.base = base
        self.table: Angles = (torch.empty(0, head_width, device="cpu"), torch.empty(0, head_width, device="cpu"))

    def angles(self, length: int, positions_BT: Tensor | None = None, *, device: torch.device | str = "cpu") -> Angles:
        """Cosines and sines to hand to `rotate`: of positions 0 … length − 1, or of the given ones, all < length."""
        if length > len(self.table[0]) or self.table[0].device != torch.device(device):
            self.table = self._grown(max(length, len(self.table[0])), device)
        cosine_SK, sine_SK = self.table
        if positions_BT is None:
            return cosine_SK[:length], sine_SK[:length]
        return cosine_SK[positions_BT][:, None], sine_SK[positions_BT][:, None]

    @torch.inference_mode(False)  # the table made while generating must serve training too
    def _grown(self, length: int, device: torch.device | str) -> Angles:
        table = (self.table[0].cpu(), self.table[1].cpu())
        groups = range(len(table[0]), length, ROWS)
        cosines, sines = zip(table, *(self._rows(first) for first in groups), strict=True)
        return torch.cat(cosines).to(device), torch.cat(sines).to(device)

    def _rows(self, first: int) -> Angles:
        """Of ROWS positions, on the CPU: not every device has fp64."""
        frequencies = self.base ** (-torch.arange(0, self.head_width, 2, dtype=torch.float64) / self.head_width)
        angles = torch.arange(first, first + ROWS, dtype=torch.float64)[:, None] * frequencies
        cosine, sine = angles.cos().float(), angles.sin().float()
        # The sign of rotate-half is folded into the sine: one roll instead of a negation and a concatenation.
        return torch.cat([cosine, cosine], dim=-1), torch.cat([-sine, sine], dim=-1)


def rotate(x_BHTK: Tensor, angles: Angles) -> Tensor:
    """Each pair of coordinates turned by the angle of its position, computed in the precision of the angles."""
    cosine, sine = angles
    return (x_BHTK * cosine + x_BHTK.roll(x_BHTK.shape[-1] // 2, dims=-1) * sine).to(x_BHTK.dtype)
