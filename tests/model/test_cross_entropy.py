"""Cross-entropy in chunks is cross-entropy."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from seedbed.model import cross_entropy as module
from seedbed.model.cross_entropy import Scores, cross_entropy, summed_cross_entropy

KINDS = [Scores(), Scores(softcap=3.0)]


def inputs(count: int = 7, vocabulary: int = 11, width: int = 5, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    x_ND = torch.randn(count, width, generator=generator, dtype=dtype)
    weight_VD = torch.randn(vocabulary, width, generator=generator, dtype=dtype)
    targets_N = torch.randint(vocabulary, (count,), generator=generator)
    return [x_ND.requires_grad_(), weight_VD.requires_grad_(), targets_N]


def by_the_formula(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, scores: Scores) -> Tensor:
    logits_NV = x_ND @ weight_VD.T
    if scores.softcap is not None:
        logits_NV = scores.softcap * torch.tanh(logits_NV / scores.softcap)
    return F.cross_entropy(logits_NV, targets_N, reduction="none")


@pytest.fixture(params=[2**20, 66, 1])
def chunk(request, monkeypatch) -> int:
    """All rows at once; six of them, the last chunk being shorter; as many as the hidden states are wide."""
    monkeypatch.setattr(module, "CHUNK", request.param)
    return request.param


@pytest.mark.parametrize("scores", KINDS)
def test_losses_and_gradients_are_those_of_the_formula(scores, chunk):
    x_ND, weight_VD, targets_N = inputs()
    upstream_N = torch.linspace(-2, 3, len(targets_N), dtype=torch.float64)
    expected_N = by_the_formula(x_ND, weight_VD, targets_N, scores)
    torch.testing.assert_close(cross_entropy(x_ND, weight_VD, targets_N, scores), expected_N, rtol=1e-13, atol=0)
    for ours, formula in [
        (summed_cross_entropy(x_ND, weight_VD, targets_N, scores) * 3, expected_N.sum() * 3),
        (cross_entropy(x_ND, weight_VD, targets_N, scores) @ upstream_N, expected_N @ upstream_N),
    ]:
        torch.testing.assert_close(ours, formula, rtol=1e-13, atol=0)
        expected = torch.autograd.grad(formula, (x_ND, weight_VD), retain_graph=True)
        torch.testing.assert_close(torch.autograd.grad(ours, (x_ND, weight_VD)), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("loss", [summed_cross_entropy, cross_entropy])
@pytest.mark.parametrize("scores", KINDS)
def test_gradients_pass_the_check_by_differences(loss, scores, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 1)
    x_ND, weight_VD, targets_N = inputs()
    assert torch.autograd.gradcheck(lambda x, weight: loss(x, weight, targets_N, scores), (x_ND, weight_VD))


def test_in_one_chunk_the_loss_has_the_bits_of_the_plain_one():
    x_ND, weight_VD, targets_N = inputs(300, 1000, 32, torch.float32)
    plain_N = F.cross_entropy(x_ND @ weight_VD.T, targets_N, reduction="none")
    assert torch.equal(cross_entropy(x_ND, weight_VD, targets_N), plain_N)
    summed = summed_cross_entropy(x_ND, weight_VD, targets_N)
    assert float(summed.detach()) == pytest.approx(float(plain_N.detach().double().sum()), rel=1e-6)


def test_logits_far_from_nought_stay_finite():
    x_ND, weight_VD, targets_N = inputs()
    loss = summed_cross_entropy(x_ND * 1e4, weight_VD, targets_N)
    assert loss.isfinite() and all(part.isfinite().all() for part in torch.autograd.grad(loss, (x_ND, weight_VD)))


def test_nothing_to_predict_costs_nothing():
    x_ND, weight_VD, targets_N = inputs()
    for loss in (
        summed_cross_entropy(x_ND[:0], weight_VD, targets_N[:0]),
        cross_entropy(x_ND[:0], weight_VD, targets_N[:0]).sum(),
    ):
        assert float(loss.detach()) == 0
        assert not any(part.any() for part in torch.autograd.grad(loss, (x_ND, weight_VD)))


def test_only_the_gradients_that_are_asked_for_are_made():
    x_ND, weight_VD, targets_N = inputs()
    (alone,) = torch.autograd.grad(summed_cross_entropy(x_ND, weight_VD.detach(), targets_N), x_ND)
    both, _ = torch.autograd.grad(summed_cross_entropy(x_ND, weight_VD, targets_N), (x_ND, weight_VD))
    assert torch.equal(alone, both)
    with torch.no_grad():
        assert not summed_cross_entropy(x_ND, weight_VD, targets_N).requires_grad


class Largest(TorchDispatchMode):
    """Notes the most numbers that any tensor holds."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return result


@pytest.mark.parametrize("loss", [summed_cross_entropy, cross_entropy])
def test_no_tensor_is_larger_than_a_chunk_of_logits(loss, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 4096)
    x_ND, weight_VD, targets_N = inputs(512, 128, 4)
    with Largest() as largest:
        loss(x_ND, weight_VD, targets_N).sum().backward()
    assert largest.numbers == 4096


@pytest.mark.parametrize("loss", [summed_cross_entropy, cross_entropy])
def test_under_autocast_products_are_narrow_and_gradients_wide(loss):
    x_ND, weight_VD, targets_N = inputs(64, 50, 16, torch.float32)
    exact = torch.autograd.grad(loss(x_ND, weight_VD, targets_N).sum(), (x_ND, weight_VD))
    with torch.autocast("cpu", torch.bfloat16):
        total = loss(x_ND, weight_VD, targets_N).sum()
    narrow = torch.autograd.grad(total, (x_ND, weight_VD))
    assert total.dtype == torch.float32
    for one, other in zip(narrow, exact, strict=True):
        assert one.dtype == torch.float32 and not torch.equal(one, other)
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05)
