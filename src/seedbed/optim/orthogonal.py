"""The orthogonal factor UVᵀ of a matrix UΣVᵀ, by odd polynomials that draw each singular value towards 1.

Only matrix products: no decomposition, so that it is fast on every device and a stack of matrices is done at once.

- jordan: one polynomial again and again (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/), steepest at
  zero: after five steps values from 0.002 up lie in about [0.7, 1.2], which trains as well as 1
- polar_express: at each step the polynomial that leaves the least error from there (Amsel et al. 2025,
  arXiv:2505.16932); four steps bring values from 0.003 up into [0.8, 1.2], five those from 0.001 up into [0.87, 1.13]
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from torch import Tensor

Polynomial = tuple[float, float, float]
"""a, b, c of aσ + bσ³ + cσ⁵."""

JORDAN: Polynomial = (3.4445, -4.7750, 2.0315)

CUSHION = 0.02407327424182761
"""No polynomial is made for an interval that begins lower than at this share of its end: it would be so steep that
rounding errors grow (Amsel et al., §3.4, and the value of their code)."""


@functools.cache
def polynomials(name: Literal["jordan", "polar_express"], steps: int) -> tuple[Polynomial, ...]:
    """One for each step."""
    return (JORDAN,) * steps if name == "jordan" else _polar_express(steps)


def orthogonalise(matrix: Tensor, steps: Sequence[Polynomial]) -> Tensor:
    """About UVᵀ of a matrix (…, rows, columns) or a stack of them, in the precision it comes in."""
    if matrix.shape[-2] > matrix.shape[-1]:
        return orthogonalise(matrix.mT, steps).mT
    x = matrix / (matrix.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    # From twice as many columns on it is cheaper to leave them out until the end, at four small products a step. That
    # squares the condition, which 16 bits would not bear.
    oblong = matrix.shape[-1] >= 2 * matrix.shape[-2] and matrix.element_size() >= 4
    return _small_side(x, steps) if oblong else _whole(x, steps)


def _whole(x: Tensor, steps: Sequence[Polynomial]) -> Tensor:
    """X ← (a + bG + cG²)·X with G = X·Xᵀ."""
    for a, b, c in steps:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def _small_side(x: Tensor, steps: Sequence[Polynomial]) -> Tensor:
    """The same, with the factors P = a + bG + cG² gathered: X after all steps is …P₂P₁·X. G, and so every P, is a
    polynomial of the first G, so that all of them commute and the next G is P·G·P."""
    gram = x @ x.mT
    gathered: Tensor | None = None
    for number, (a, b, c) in enumerate(steps, start=1):
        factor = b * gram + c * gram @ gram
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        gathered = factor if gathered is None else factor @ gathered
        if number < len(steps):
            gram = factor @ gram @ factor
    return x if gathered is None else gathered @ x


def _polar_express(steps: int) -> tuple[Polynomial, ...]:
    """The polynomials whose composition has the least greatest error on [10^(−(steps + 1)/2), 1]: each step more makes
    that interval half a power of ten longer.

    Every polynomial is best for the interval that those before leave (Amsel et al., theorem 3.1).
    """
    low, high, found = max(10 ** (-(steps + 1) / 2), 1e-6), 1.0, []
    for _ in range(steps):
        a, b, c = _best_quintic(max(low, CUSHION * high), high)
        ends = [a * end + b * end**3 + c * end**5 for end in (low, high)]
        centred = 2 / sum(ends)  # where the cushion made the interval shorter, the errors lie to one side
        found.append((a * centred, b * centred, c * centred))
        low = ends[0] * centred
        high = 2 - low
    return tuple(found)


def _best_quintic(low: float, high: float) -> Polynomial:
    """The odd quintic that comes nearest to 1 on all of [low, high], by Remez's algorithm: at its optimum the error is
    the same, with signs in turn, at both ends and at the two extrema between."""
    if low >= (1 - 5e-6) * high:  # one point, as far as a float can tell: Newton–Schulz' own quintic
        return 15 / 8 / high, -10 / 8 / high**3, 3 / 8 / high**5
    extrema, error, before = [(3 * low + high) / 4, (low + 3 * high) / 4], 1.0, math.inf
    while abs(error - before) > 1e-15:
        points = np.array([low, *extrema, high])
        equations = np.stack([points, points**3, points**5, [1, -1, 1, -1]], axis=1)
        before = error
        a, b, c, error = map(float, np.linalg.solve(equations, np.ones(4)))
        root = math.sqrt(9 * b**2 - 20 * a * c)
        extrema = [math.sqrt((-3 * b + sign * root) / (10 * c)) for sign in (-1, 1)]
    return a, b, c
