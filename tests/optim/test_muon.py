"""Muon against its formula and against the singular value decomposition."""

from __future__ import annotations

import pytest
import torch

from seedbed.optim.muon import Muon, orthogonalise

SHAPES = [(16, 16), (48, 12), (12, 48), (1, 7), (7, 1)]


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def well_conditioned(rows, columns, seed=0):
    """A matrix whose singular values lie between 0.2 and 1: far enough from zero for five steps."""
    u, _, vt = torch.linalg.svd(draw(rows, columns, seed=seed), full_matrices=False)
    return u @ torch.diag(torch.linspace(1.0, 0.2, min(rows, columns), dtype=torch.float64)) @ vt


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_singular_values_come_near_one(shape):
    values = torch.linalg.svdvals(orthogonalise(3.7 * well_conditioned(*shape), 5))
    assert 0.65 < values.min() <= values.max() < 1.25


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_singular_vectors_stay(shape):
    """In the basis of the matrix's own singular vectors the result is diagonal."""
    matrix = well_conditioned(*shape)
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.mT @ orthogonalise(matrix, 5) @ vt.mT
    torch.testing.assert_close(inner, torch.diag(inner.diag()), rtol=0, atol=1e-10)
    assert (inner.diag() > 0).all()  # towards UVᵀ, not away from it


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_stack_equals_its_matrices_one_by_one(shape):
    stack = torch.stack([draw(*shape, seed=seed) * 10.0**seed for seed in range(3)])
    together = orthogonalise(stack, 5)
    for matrix, got in zip(stack, together, strict=True):
        torch.testing.assert_close(got, orthogonalise(matrix, 5), rtol=0, atol=1e-12)


def test_a_tall_matrix_is_treated_as_its_transpose():
    matrix = draw(48, 12)
    torch.testing.assert_close(orthogonalise(matrix, 5), orthogonalise(matrix.mT, 5).mT, rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_each_step_is_the_polynomial_on_the_singular_values(steps):
    matrix = draw(6, 9)
    values = torch.linalg.svdvals(matrix) / (matrix.norm() + 1e-7)
    for _ in range(steps):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    got = torch.linalg.svdvals(orthogonalise(matrix, steps))
    torch.testing.assert_close(got, values.sort(descending=True).values, rtol=0, atol=1e-10)


def test_nothing_moves_nowhere():
    assert torch.equal(orthogonalise(torch.zeros(3, 4), 5), torch.zeros(3, 4))


@pytest.mark.parametrize("shape", [(6, 6), (12, 3), (3, 12)], ids=str)
def test_steps_follow_the_formula_written_out(shape):
    lr, momentum, decay = 0.03, 0.9, 0.2
    weight, momentum_matrix = draw(*shape, seed=9), torch.zeros(shape, dtype=torch.float64)
    parameter = torch.nn.Parameter(weight.clone())
    optimizer = Muon([parameter], lr=lr, momentum=momentum, weight_decay=decay, steps=5)
    for step in range(3):
        gradient = draw(*shape, seed=step)
        momentum_matrix = momentum * momentum_matrix + (1 - momentum) * gradient
        nesterov = (1 - momentum) * gradient + momentum * momentum_matrix
        update = orthogonalise(nesterov, 5) * max(1, shape[0] / shape[1]) ** 0.5
        weight = weight * (1 - lr * decay) - lr * update
        parameter.grad = gradient.clone()
        optimizer.step()
        torch.testing.assert_close(parameter.data, weight, rtol=0, atol=1e-12)


def test_matrices_of_one_shape_move_as_they_would_alone():
    starts, gradients = [draw(5, 8, seed=seed) for seed in (1, 2)], [draw(5, 8, seed=seed) for seed in (3, 4)]
    together = [torch.nn.Parameter(start.clone()) for start in starts]
    optimizer = Muon(together)
    for parameter, gradient in zip(together, gradients, strict=True):
        parameter.grad = gradient.clone()
    optimizer.step()
    for parameter, start, gradient in zip(together, starts, gradients, strict=True):
        alone = torch.nn.Parameter(start.clone())
        alone.grad = gradient.clone()
        Muon([alone]).step()
        torch.testing.assert_close(parameter, alone, rtol=0, atol=1e-12)


def test_a_matrix_without_a_gradient_stays():
    moved, stays = (torch.nn.Parameter(draw(4, 4, seed=seed)) for seed in (1, 2))
    before = stays.detach().clone()
    moved.grad = draw(4, 4, seed=3)
    Muon([moved, stays], weight_decay=0.5).step()
    assert torch.equal(stays, before)


def test_momentum_survives_saving_and_loading():
    def run(breaks):
        parameter = torch.nn.Parameter(draw(4, 6))
        optimizer = Muon([parameter], momentum=0.9)
        for step in range(4):
            if step == 2 and breaks:
                state = optimizer.state_dict()
                optimizer = Muon([parameter], momentum=0.9)
                optimizer.load_state_dict(state)
            parameter.grad = draw(4, 6, seed=step)
            optimizer.step()
        return parameter.detach()

    assert torch.equal(run(breaks=False), run(breaks=True))
