"""Muon against its formula; its orthogonalisation has tests of its own."""

from __future__ import annotations

import pytest
import torch

from seedbed.optim.muon import Muon
from seedbed.optim.orthogonal import orthogonalise, polynomials
from tests.optim.matrices import draw

FIVE = polynomials("jordan", 5)


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
        update = orthogonalise(nesterov, FIVE) * max(1, shape[0] / shape[1]) ** 0.5
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


@pytest.mark.parametrize("shape", [(6, 6), (12, 3), (3, 12)], ids=str)
def test_normuon_follows_the_formula_written_out(shape):
    lr, momentum, memory = 0.03, 0.9, 0.8
    weight, momenta, neurons = draw(*shape, seed=9), torch.zeros(shape).double(), torch.zeros(shape[0], 1).double()
    parameter = torch.nn.Parameter(weight.clone())
    optimizer = Muon([parameter], lr=lr, momentum=momentum, neuron_memory=memory, polynomial="polar_express", steps=4)
    for step in range(3):
        gradient = draw(*shape, seed=step)
        momenta = momentum * momenta + (1 - momentum) * gradient
        update = orthogonalise((1 - momentum) * gradient + momentum * momenta, polynomials("polar_express", 4))
        neurons = memory * neurons + (1 - memory) * (update**2).mean(1, keepdim=True)
        evened = update / neurons**0.5
        evened *= update.norm() / evened.norm()
        weight = weight - lr * max(1, shape[0] / shape[1]) ** 0.5 * evened
        parameter.grad = gradient.clone()
        optimizer.step()
        torch.testing.assert_close(parameter.data, weight, rtol=0, atol=1e-8)


def test_rows_of_a_normuon_update_become_even():
    """A matrix of which one row is a hundred times as large as the others, step after step."""
    spread = {}
    for memory in (None, 0.5):
        parameter = torch.nn.Parameter(torch.zeros(40, 8).double())
        optimizer = Muon([parameter], lr=1.0, neuron_memory=memory)
        for step in range(8):
            before = parameter.detach().clone()
            parameter.grad = draw(40, 8, seed=step % 2)
            parameter.grad[3] *= 100
            optimizer.step()
        rows = (parameter.detach() - before).norm(dim=1)
        spread[memory] = float(rows.max() / rows.median())
    assert spread[None] > 2 > 1.5 > spread[0.5]


def test_a_parameter_of_three_dimensions_is_a_stack_of_matrices():
    experts = draw(3, 5, 8)
    whole, alone = torch.nn.Parameter(experts.clone()), [torch.nn.Parameter(matrix.clone()) for matrix in experts]
    gradient = draw(3, 5, 8, seed=1)
    whole.grad = gradient.clone()
    for parameter, part in zip(alone, gradient, strict=True):
        parameter.grad = part.clone()
    for memory in (None, 0.9):
        Muon([whole], neuron_memory=memory).step()
        Muon(alone, neuron_memory=memory).step()
        torch.testing.assert_close(whole.data, torch.stack([parameter.data for parameter in alone]), rtol=0, atol=1e-12)


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
