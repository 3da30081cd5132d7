"""Norms and updates by group, against the plain formula in double precision."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from seedbed.training.statistics.parameters import gradient_norms, group_parameters, norm, update_ratios
from tests.tiny import TINY, tiny_model


def long_norm(tensors) -> float:
    return float(torch.cat([tensor.detach().double().flatten() for tensor in tensors]).norm())


def test_each_parameter_is_in_one_group_by_kind_and_in_its_block():
    model = tiny_model(replace(TINY, layers=2))
    groups = group_parameters(model)
    assert groups.keys() == {"matrix", "embedding", "head", "vector", "block_0", "block_1"}
    kinds = [id(parameter) for kind in ("matrix", "embedding", "head", "vector") for parameter in groups[kind]]
    assert sorted(kinds) == sorted(map(id, model.parameters()))
    assert sum(map(len, (groups["block_0"], groups["block_1"]))) == len(kinds) - 3  # embedding, head, last norm


def test_frozen_parameters_are_in_no_group():
    model = tiny_model()
    for parameter in model.blocks.parameters():
        parameter.requires_grad = False
    assert group_parameters(model).keys() == {"embedding", "head", "vector"}


@pytest.mark.parametrize("clipped_to", [1.0, 1e-3])
def test_norms_are_those_before_clipping(clipped_to):
    model, generator = tiny_model(), torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    groups = group_parameters(model)
    expected = {name: long_norm([p.grad for p in group]) for name, group in groups.items()}
    whole = long_norm([p.grad for p in model.parameters()])
    for parameter in model.parameters():
        parameter.grad *= clipped_to / whole
    found = gradient_norms(groups, whole)
    assert found == {name: pytest.approx(value, rel=1e-4) for name, value in expected.items()}
    kinds = [found[kind] ** 2 for kind in ("matrix", "embedding", "head", "vector")]
    assert sum(kinds) ** 0.5 == pytest.approx(whole, rel=1e-4)


def test_no_gradient_at_all_is_a_norm_of_nought():
    groups = group_parameters(tiny_model())
    assert set(gradient_norms(groups, 0.0).values()) == {0.0}
    assert norm([]) == 0.0


def test_an_update_is_measured_against_the_weights_before_it():
    model, generator = tiny_model(), torch.Generator().manual_seed(1)
    groups = group_parameters(model)
    before = {name: [parameter.detach().clone() for parameter in group] for name, group in groups.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    expected = {
        name: long_norm([p - old for p, old in zip(group, before[name], strict=True)]) / long_norm(before[name])
        for name, group in groups.items()
    }
    assert update_ratios(before, groups) == {name: pytest.approx(value, rel=1e-4) for name, value in expected.items()}
    before["vector"] = [torch.zeros_like(old) for old in before["vector"]]
    assert "vector" not in update_ratios(before, groups)
