"""The orthogonal factor against the singular value decomposition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seedbed.optim.orthogonal import JORDAN, orthogonalise, polynomials
from tests.optim.matrices import draw, with_values

SHAPES = [(16, 16), (48, 12), (12, 48), (12, 20), (1, 7), (7, 1)]
"""Square, and oblong both ways: the smaller side is what the products go by, from 1 : 2 on it alone."""

NAMES = ["jordan", "polar_express"]

GOOD = [("jordan", 5, 0.002, 0.32), ("polar_express", 3, 0.01, 0.28), ("polar_express", 4, 0.00317, 0.2)]
GOOD += [("polar_express", 5, 0.001, 0.13), ("polar_express", 7, 0.0001, 0.06)]
"""Name, steps, and how far from 1 any singular value lies that was not below this share of the norm."""


@pytest.mark.parametrize(("name", "steps", "least", "error"), GOOD)
@pytest.mark.parametrize("shape", [(40, 40), (40, 100)], ids=str)
def test_singular_values_come_as_near_one_as_the_docs_say(name, steps, least, error, shape):
    values = torch.logspace(0, -5, 40, dtype=torch.float64)
    values /= values.norm()
    matrix = with_values(*shape, values)
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    got = (u.mT @ orthogonalise(matrix, polynomials(name, steps)) @ vt.mT).diagonal()
    assert (got[values >= least] - 1).abs().max() < error and (values >= least).sum() > 10
    assert got.min() > 0 and got.max() < 1 + error


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_singular_vectors_stay(name, shape):
    """In the basis of the matrix's own singular vectors the result is diagonal."""
    matrix = with_values(*shape, torch.linspace(1.0, 0.2, min(shape), dtype=torch.float64))
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.mT @ orthogonalise(3.7 * matrix, polynomials(name, 5)) @ vt.mT
    torch.testing.assert_close(inner, torch.diag(inner.diag()), rtol=0, atol=1e-10)
    assert (inner.diag() > 0.65).all()  # towards UVᵀ, not away from it


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_stack_equals_its_matrices_one_by_one(name, shape):
    stack = torch.stack([draw(*shape, seed=seed) * 10.0**seed for seed in range(3)])
    together = orthogonalise(stack, polynomials(name, 5))
    for matrix, got in zip(stack, together, strict=True):
        torch.testing.assert_close(got, orthogonalise(matrix, polynomials(name, 5)), rtol=0, atol=1e-10)


def test_a_tall_matrix_is_treated_as_its_transpose():
    matrix, steps = draw(48, 12), polynomials("jordan", 5)
    torch.testing.assert_close(orthogonalise(matrix, steps), orthogonalise(matrix.mT, steps).mT, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 3, 5])
@pytest.mark.parametrize("shape", [(6, 9), (6, 30)], ids=str)
def test_each_step_is_the_polynomial_on_the_singular_values(name, steps, shape):
    """Whether the columns are left out until the end or not."""
    matrix = draw(*shape)
    values = torch.linalg.svdvals(matrix) / (matrix.norm() + 1e-7)
    for a, b, c in polynomials(name, steps):
        values = a * values + b * values**3 + c * values**5
    got = torch.linalg.svdvals(orthogonalise(matrix, polynomials(name, steps)))
    torch.testing.assert_close(got, values.abs().sort(descending=True).values, rtol=0, atol=1e-10)


@given(st.integers(0, 10_000), st.floats(0, 6), st.sampled_from(NAMES))
def test_in_fp32_a_badly_conditioned_matrix_comes_out_as_in_fp64(seed, decades, name):
    """Leaving the columns out squares the condition, which five steps bear."""
    values = torch.logspace(0, -decades, 12, dtype=torch.float64)
    matrix = with_values(12, 40, values, seed=seed)
    exact = orthogonalise(matrix, polynomials(name, 5))
    torch.testing.assert_close(orthogonalise(matrix.float(), polynomials(name, 5)).double(), exact, rtol=0, atol=1e-2)


@pytest.mark.parametrize("shape", [(24, 24), (12, 40), (40, 12)], ids=str)
def test_in_16_bits_an_oblong_matrix_comes_out_as_well_as_a_square_one(shape):
    matrix = with_values(*shape, torch.logspace(0, -4, min(shape), dtype=torch.float64))
    exact = orthogonalise(matrix, polynomials("jordan", 5))
    got = orthogonalise(matrix.bfloat16(), polynomials("jordan", 5))
    assert got.dtype == torch.bfloat16
    assert (got.double() - exact).norm() < 0.4 * exact.norm()  # on the small side alone: 20,000 times


def test_jordan_is_one_polynomial_and_polar_express_is_that_of_the_paper():
    """The first coefficients of the table in Amsel et al. 2025, §4, which is made for values from 0.001 up."""
    assert polynomials("jordan", 3) == ((3.4445, -4.7750, 2.0315),) * 3 == (JORDAN,) * 3
    table = [
        (8.28721201814563, -23.595886519098837, 17.300387312530933),
        (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
        (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
        (3.3184196573706015, -2.488488024314874, 0.51004894012372),
        (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    ]
    for got, wanted in zip(polynomials("polar_express", 5), table, strict=True):
        assert got == pytest.approx(wanted, rel=1e-9)


def test_nothing_moves_nowhere():
    for name in NAMES:
        for shape in ((3, 4), (3, 9), (9, 3)):
            assert torch.equal(orthogonalise(torch.zeros(*shape), polynomials(name, 5)), torch.zeros(*shape))
