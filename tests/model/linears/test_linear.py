"""Products of linear layers, whichever kernel computes them.

Shape suffixes: N rows, D inputs, O outputs.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seedbed import onednn
from seedbed.model.linears import linear as room
from seedbed.model.linears.linear import WORTH, Linear, linear

needs_onednn = pytest.mark.skipif(not onednn.AVAILABLE, reason="this build of torch has no oneDNN for this processor")


@pytest.fixture
def asked(monkeypatch):
    """The shapes that oneDNN is asked for; the smallest product is worth asking."""
    shapes = []
    multiply = onednn.linear
    monkeypatch.setattr(room, "WORTH", 0)
    monkeypatch.setattr(onednn, "linear", lambda x, *others: shapes.append(tuple(x.shape)) or multiply(x, *others))
    return shapes


@needs_onednn
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 24), (2, 3, 24), (1, 24), (2, 0, 24), (24,)])
def test_result_and_gradients_are_those_of_fp64(shape, bias, asked):
    torch.manual_seed(0)
    layer, x_D = Linear(24, 40, bias=bias), torch.randn(shape, requires_grad=True)
    gradient_O = torch.randn(*shape[:-1], 40)
    y_O = layer(x_D)
    y_O.backward(gradient_O)
    exact = {"x": x_D, **dict(layer.named_parameters())}
    exact = {name: tensor.detach().double().requires_grad_() for name, tensor in exact.items()}
    wanted_O = F.linear(exact["x"], exact["weight"], exact.get("bias"))
    wanted_O.backward(gradient_O.double())
    assert len(asked) == 2, "forward, and the gradient of the input"
    torch.testing.assert_close(y_O.double(), wanted_O, rtol=1e-5, atol=1e-5)
    for name, tensor in {"x": x_D, **dict(layer.named_parameters())}.items():
        torch.testing.assert_close(tensor.grad.double(), exact[name].grad, rtol=1e-5, atol=1e-5)


@needs_onednn
def test_only_gradients_that_are_asked_for_are_computed(asked):
    layer, x_D = Linear(24, 40), torch.randn(7, 24, requires_grad=True)
    layer.requires_grad_(False)
    layer(x_D).sum().backward()
    assert x_D.grad is not None and layer.weight.grad is None and layer.bias.grad is None
    x_D = torch.randn(7, 24)
    layer.requires_grad_(True)
    layer(x_D).sum().backward()
    assert len(asked) == 3, "a first layer hands no gradient down"
    assert layer.bias.grad.tolist() == [7.0] * 40


@needs_onednn
def test_a_transposed_weight_is_no_copy_and_the_same(asked):
    x_NO, weight_OD = torch.randn(9, 40), torch.randn(40, 24)
    torch.testing.assert_close(linear(x_NO, weight_OD.T), x_NO @ weight_OD, rtol=1e-5, atol=1e-5)
    assert len(asked) == 1


def test_other_precisions_and_small_products_stay_with_pytorch(monkeypatch):
    monkeypatch.setattr(onednn, "linear", lambda *given: pytest.fail("oneDNN was asked"))
    small_ND, weight_OD = torch.randn(2, 8), torch.randn(8, 8)
    assert torch.equal(linear(small_ND, weight_OD), F.linear(small_ND, weight_OD))
    rows = WORTH // (64 * 64)
    linear(torch.randn(rows - 1, 64), torch.randn(64, 64))
    monkeypatch.setattr(room, "WORTH", 0)
    for dtype in (torch.float64, torch.bfloat16):
        x_ND, other_OD = small_ND.to(dtype), weight_OD.to(dtype)
        assert torch.equal(linear(x_ND, other_OD), F.linear(x_ND, other_OD))
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(small_ND, weight_OD).dtype == torch.bfloat16


@needs_onednn
@pytest.mark.parametrize("bias", [None, torch.ones(40)])
@pytest.mark.parametrize("transposed", [True, False])
def test_compilers_know_the_operator(bias, transposed):
    weight_OD = torch.randn(24, 40).T if transposed else torch.randn(40, 24)
    torch.library.opcheck(torch.ops.seedbed.linear, (torch.randn(2, 3, 24), weight_OD, bias))


def test_it_is_a_linear_layer_to_whoever_looks_for_one():
    layer = Linear(4, 3)
    assert isinstance(layer, nn.Linear) and list(layer.state_dict()) == ["weight", "bias"]
