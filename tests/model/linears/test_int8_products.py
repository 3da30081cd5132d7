"""Products of a training step in whole numbers: near the exact ones, right on average, the same every time."""

from __future__ import annotations

import pytest
import torch

from seedbed.model.linears import int8_products
from seedbed.model.linears.int8_products import Int8ProductLinear, use_int8_products
from tests.random_models import random_model

OPERATORS = torch.ops.seedbed


@pytest.fixture(autouse=True)
def every_size(monkeypatch):
    """Also products that would be too small to be worth it."""
    monkeypatch.setattr(int8_products, "WORTH", 0)


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (65, 33), (16, 256)])
def test_each_row_or_column_is_rounded_to_the_nearest_of_127_steps(shape):
    x_ND = random(*shape) * torch.logspace(-3, 3, shape[1])
    for name, dim in (("round_rows", 1), ("round_columns", 0)):
        rounded_ND, scale = getattr(OPERATORS, name)(x_ND, False)
        scale = scale.unsqueeze(dim)
        wanted = x_ND.abs().amax(dim, keepdim=True) / 127
        torch.testing.assert_close(scale, wanted)
        assert rounded_ND.abs().amax(dim).eq(127).all()
        assert ((rounded_ND * scale - x_ND).abs() <= scale * 0.50001).all()


@pytest.mark.parametrize("name", ["round_rows", "round_columns"])
def test_rounding_by_chance_is_right_on_average_and_the_same_every_time(name):
    dim = 1 if name == "round_rows" else 0
    x_ND = random(400, 500)
    rounded_ND, scale = getattr(OPERATORS, name)(x_ND, True)
    error_ND = (rounded_ND * scale.unsqueeze(dim) - x_ND) / scale.unsqueeze(dim)
    assert error_ND.abs().max() < 1.0001
    # Of steps, uniform fractions: the variance of an error is 1/6, that of the mean of 200,000 is tiny.
    assert error_ND.mean().abs() < 5 * (1 / 6 / x_ND.numel()) ** 0.5
    assert 0.16 < error_ND.var() < 0.173
    low_ND = (x_ND / scale.unsqueeze(dim)).floor()
    chance_ND = x_ND / scale.unsqueeze(dim) - low_ND
    for lowest in (0.0, 0.25, 0.5, 0.75):
        some = (chance_ND >= lowest) & (chance_ND < lowest + 0.25)
        went_up = (rounded_ND[some] > low_ND[some]).float().mean()
        assert abs(went_up - chance_ND[some].mean()) < 0.01
    again = getattr(OPERATORS, name)(x_ND.clone(), True)
    assert torch.equal(rounded_ND, again[0]) and torch.equal(scale, again[1])


@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("stochastic", [False, True])
def test_what_is_no_number_is_not_hidden(broken, stochastic):
    x_ND = random(8, 40)
    x_ND[3, 5] = broken
    for name, place in (("round_rows", 3), ("round_columns", 5)):
        _, scale = getattr(OPERATORS, name)(x_ND, stochastic)
        assert not scale[place].isfinite() and scale.isfinite().sum() == len(scale) - 1


def test_a_row_of_noughts_stays_one():
    for name in ("round_rows", "round_columns"):
        rounded_ND, scale = getattr(OPERATORS, name)(torch.zeros(4, 8), True)
        assert not rounded_ND.any() and scale.isfinite().all()


def test_products_are_near_the_exact_ones_and_the_weights_stay():
    model = random_model(width=64)
    linear = model.blocks[0].feedforward.up
    names = list(model.state_dict())
    x_BTD = random(3, 700, 64).requires_grad_()
    exact = linear(x_BTD)
    upstream = random(*exact.shape)
    expected = torch.autograd.grad(exact, (x_BTD, linear.weight), upstream)
    use_int8_products(model)
    assert type(linear) is Int8ProductLinear and list(model.state_dict()) == names
    rounded = linear(x_BTD)
    found = torch.autograd.grad(rounded, (x_BTD, linear.weight), upstream)
    for one, other in zip((rounded, *found), (exact, *expected), strict=True):
        assert 1e-3 < (one - other).norm() / other.norm() < 0.02
    with torch.no_grad():
        assert torch.equal(linear(x_BTD), exact)  # validation sees the weights as they are


def test_a_gradient_that_rounding_to_the_nearest_would_lose_arrives():
    """A number far smaller than a step, beside a large one, a thousand times: by chance it is there on average."""
    layer = Int8ProductLinear(2, 2, bias=False)
    torch.nn.init.eye_(layer.weight)
    x_ND = torch.ones(20_000, 2, requires_grad=True)
    upstream = torch.stack([1 + torch.arange(20_000) * 1e-6, torch.full((20_000,), 1e-3)], dim=1)
    (gradient_ND,) = torch.autograd.grad(layer(x_ND), x_ND, upstream)
    assert gradient_ND[:, 1].mean().item() == pytest.approx(1e-3, rel=0.1)
    assert (gradient_ND[:, 1] == 0).float().mean() > 0.8


def test_the_operators_are_what_the_compiler_is_told():
    x_ND, b_KM = random(6, 32), torch.randint(-9, 9, (32, 16), dtype=torch.int8)
    for operator, inputs in (
        (OPERATORS.round_rows.default, (x_ND, True)),
        (OPERATORS.round_columns.default, (x_ND, False)),
        (OPERATORS.int8_product.default, (x_ND.to(torch.int8), random(6), b_KM, random(16))),
    ):
        torch.library.opcheck(operator, inputs, test_utils=("test_schema", "test_faketensor"))


def test_sums_of_very_many_rows_stay_whole(monkeypatch):
    """All of one sign and size: in 32 bits 133,144 products are too many."""
    layer = Int8ProductLinear(2, 2, bias=False)
    x_ND = torch.ones(140_000, 2)
    layer(x_ND).sum().backward()
    torch.testing.assert_close(layer.weight.grad, torch.full((2, 2), 140_000.0))


@pytest.mark.parametrize("shape", [(1, 3), (3, 1), (1, 1)])
def test_a_layer_of_one_input_or_output_is_multiplied_as_ever(shape):
    layer = Int8ProductLinear(*shape, bias=False)
    x_ND = random(513, shape[0])
    torch.testing.assert_close(layer(x_ND), x_ND @ layer.weight.T)


def test_both_gradients_are_rounded_by_chance():
    """What rounding to the nearest would lose altogether arrives in the gradient of the weight, too."""
    layer = Int8ProductLinear(2, 3, bias=False)
    upstream = torch.full((20_000, 3), 1e-3)
    upstream[0] = 1.0
    (gradient_OD,) = torch.autograd.grad(layer(torch.ones(20_000, 2)), layer.weight, upstream)
    torch.testing.assert_close(gradient_OD, torch.full((3, 2), 1.0 + 19_999 * 1e-3), rtol=0.1, atol=0)
