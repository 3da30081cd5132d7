"""Every way of computing attention gives what the reference gives, and the reference what the formula says.

Shape suffixes: B rows, T query positions, S key positions, H query heads, G key/value heads, K head width.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from torch.nn.attention import flex_attention

from seedbed.model.attention_paths import flash
from seedbed.model.attention_paths.flash import FlashAttention
from seedbed.model.attention_paths.flex import FlexAttention
from seedbed.model.attention_paths.path import Heads
from seedbed.model.attention_paths.reference import ReferenceAttention, attention_entropy
from seedbed.model.attention_paths.sdpa import ScaledDotProductAttention
from seedbed.model.masks import AttentionMask, BlockSparse, alibi_slopes
from tests import documented_flash_attn
from tests.random_masks import CPU, GROUPS, cases

FLASH_RULES = "documents window alibi both"
"""What flash-attn knows; the rest is its obstacle."""


def one_query_at_a_time(case, q, k, v):
    """The formula, in sums over what is visible."""
    out = torch.zeros_like(q)
    group = case.heads.group
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for t in range(q.shape[2]):
                seen = [s for s in range(k.shape[2]) if case.visible(b, t, s)]
                dots = [float(q[b, h, t] @ k[b, h // group, s]) / math.sqrt(q.shape[-1]) for s in seen]
                weights = [math.exp(dot + case.bias(h, b, t, s)) for dot, s in zip(dots, seen, strict=True)]
                for s, weight in zip(seen, weights, strict=True):
                    out[b, h, t] += weight / sum(weights) * v[b, h // group, s]
    return out


def assert_same(got, wanted, tolerance=1e-10):
    torch.testing.assert_close(got, wanted, rtol=0, atol=tolerance)


def gradients(attend, inputs):
    """Of a sum in which every output counts differently."""
    out = attend(*inputs)
    weights = torch.linspace(-1, 2, out.numel(), dtype=out.dtype, device=out.device).view_as(out)
    return torch.autograd.grad((out * weights).sum(), inputs)


@settings(max_examples=80)
@given(cases(longest=6))
def test_the_reference_is_the_formula(case):
    inputs = [x.detach() for x in case.inputs()]
    wanted = one_query_at_a_time(case, *inputs)
    assert_same(ReferenceAttention(case.mask, case.heads)(*inputs), wanted, 1e-12)


@settings(max_examples=150)
@given(cases())
def test_sdpa_equals_the_reference_in_values_and_gradients(case):
    inputs = case.inputs()
    reference, sdpa = (path(case.mask, case.heads) for path in (ReferenceAttention, ScaledDotProductAttention))
    assert_same(sdpa(*inputs), reference(*inputs))
    for got, wanted in zip(gradients(sdpa, inputs), gradients(reference, inputs), strict=True):
        assert_same(got, wanted)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@settings(max_examples=60)
@given(cases())
def test_flex_equals_the_reference(case):
    """Not compiled, which PyTorch can do in fp64 on a CPU, but without gradients: the rule that the mask and the bias
    become is the same one that a GPU compiles."""
    inputs = [x.detach() for x in case.inputs()]
    reference, flex = (path(case.mask, case.heads) for path in (ReferenceAttention, FlexAttention))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)  # nor traced, which takes longer
        assert_same(flex(*inputs), reference(*inputs))


@settings(max_examples=100)
@given(cases(rules=FLASH_RULES))
def test_flash_hands_documented_arguments_to_flash_attn(case):
    assume(case.segments is None or any(number >= 0 for row in case.segments for number in row))
    inputs = case.inputs()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flash, "flash_attn", lambda: documented_flash_attn)
        reference, path = (path(case.mask, case.heads) for path in (ReferenceAttention, FlashAttention))
        assert_same(path(*inputs), reference(*inputs), 1e-6)  # it takes slopes in fp32
        for got, wanted in zip(gradients(path, inputs), gradients(reference, inputs), strict=True):
            assert_same(got, wanted, 1e-5)


MIXED = {
    "documents": {"segments_BT": torch.tensor([[0, 0, 0, 1, 1], [4, 4, -1, -1, -1]])},
    "window": {"window": 2},
    "prefix": {"prefix_B": torch.tensor([3, 0])},
    "block-sparse": {"sparse": BlockSparse(2, 1)},
    "ALiBi": {"slopes_H": alibi_slopes(2), "causal": False},
    "all of them": {
        "segments_BT": torch.tensor([[0, 0, 0, 1, 1], [4, 4, -1, -1, -1]]),
        "positions_BT": torch.tensor([[0, 1, 2, 0, 1], [0, 1, 0, 0, 0]]),
        "window": 3,
        "prefix_B": torch.tensor([3, 0]),
        "sparse": BlockSparse(2, 1),
        "slopes_H": alibi_slopes(2),
    },
}
PATHS = {"reference": ReferenceAttention, "sdpa": ScaledDotProductAttention}


@pytest.mark.parametrize("path", PATHS.values(), ids=list(PATHS))
@pytest.mark.parametrize("rules", MIXED.values(), ids=list(MIXED))
def test_gradients_are_those_of_finite_differences(path, rules):
    attend = path(AttentionMask(2, 5, 5, CPU, **rules), Heads(2, 1, 3, torch.float64))
    generator = torch.Generator().manual_seed(3)
    shapes = [(2, 2, 5, 3), (2, 1, 5, 3), (2, 1, 5, 3)]
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(attend, inputs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("slopes_H", [None, alibi_slopes(4)], ids=["plain", "ALiBi"])
@pytest.mark.parametrize("path", PATHS.values(), ids=list(PATHS))
def test_a_query_that_sees_nothing_gives_zero_and_has_no_gradient(path, slopes_H, dtype):
    segments_BT = torch.tensor([[0, 0, -1, 1], [-1, -1, -1, -1]])
    attend = path(AttentionMask(2, 4, 4, CPU, segments_BT=segments_BT, slopes_H=slopes_H), Heads(4, 2, 8, dtype))
    inputs = [torch.randn(2, heads, 4, 8, dtype=dtype, requires_grad=True) for heads in (4, 2, 2)]
    padding = segments_BT < 0
    assert not attend(*inputs).transpose(1, 2)[padding].any()
    for gradient in gradients(attend, inputs):
        assert not gradient.transpose(1, 2)[padding].any() and gradient.isfinite().all()
        assert gradient.transpose(1, 2)[~padding].any()


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_a_flex_query_that_sees_nothing_gives_zero():
    mask = AttentionMask(1, 4, 4, CPU, segments_BT=torch.tensor([[0, -1, -1, 1]]))
    inputs = [torch.randn(1, 2, 4, 8) for _ in range(3)]
    assert not FlexAttention(mask, Heads(2, 2, 8, torch.float32))(*inputs)[:, :, 1:3].any()


def test_whole_rows_need_no_mask(monkeypatch):
    """Nor does a window as long as the row: the kernel's own causal order is the fast way."""
    calls = []
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", lambda *_, **said: calls.append(said))
    heads = Heads(2, 1, 4, torch.float32)
    for causal in (True, False):
        ScaledDotProductAttention(AttentionMask(2, 6, 6, CPU, causal=causal), heads)(None, None, None)
    assert [(said["is_causal"], "attn_mask" in said) for said in calls] == [(True, False), (False, False)]


@pytest.mark.parametrize("path", PATHS.values(), ids=list(PATHS))
@pytest.mark.parametrize("rules", [{}, {"window": 3}], ids=["whole", "window"])
def test_dropout_leaves_the_expectation_as_it_is(path, rules):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 6, 4, generator=generator).expand(4000, -1, -1, -1) for _ in range(3))
    mask, heads = AttentionMask(4000, 6, 6, CPU, **rules), Heads(2, 2, 4, torch.float32)
    torch.manual_seed(0)
    dropped = path(mask, replace(heads, dropout=0.3))(q, k, v)
    assert dropped[:, :, -1].std(0).min() > 0.02
    torch.testing.assert_close(dropped.mean(0), path(mask, heads)(q, k, v)[0], rtol=0, atol=0.05)


def test_entropy_is_the_logarithm_of_how_many_keys_are_read_alike():
    q, k = torch.zeros(1, 4, 6, 8), torch.randn(1, 2, 6, 8)
    entropy_BHT = attention_entropy(q, k, AttentionMask(1, 6, 6, CPU, window=4))
    wanted_T = torch.tensor([1.0, 2, 3, 4, 4, 4]).log()
    torch.testing.assert_close(entropy_BHT, wanted_T.expand(1, 4, 6), rtol=0, atol=1e-6)


def test_the_entropy_of_a_query_that_sees_nothing_is_zero():
    mask = AttentionMask(1, 2, 2, CPU, segments_BT=torch.tensor([[0, -1]]))
    assert not attention_entropy(torch.randn(1, 2, 2, 4), torch.randn(1, 2, 2, 4), mask).any()


# On a GPU -------------------------------------------------------------------------------------------------------------

GPU_RULES = {
    "documents": {"segments_BT": (torch.arange(200) // 37).expand(2, -1)},
    "window": {"window": 50},
    "ALiBi": {"slopes_H": alibi_slopes(4)},
    "block-sparse": {"sparse": BlockSparse(64, 8)},
    "prefix": {"prefix_B": torch.tensor([20, 150])},
}


@pytest.mark.gpu
@pytest.mark.parametrize("rules", GPU_RULES.values(), ids=list(GPU_RULES))
@pytest.mark.parametrize(
    ("path", "dtype", "tolerance"), [(FlexAttention, torch.float32, 1e-3), (FlashAttention, torch.bfloat16, 3e-2)]
)
def test_kernels_of_a_gpu_equal_the_reference(path, dtype, tolerance, rules):
    """fp32 to 1e-3: products may be in TF32; bf16 to 3e-2: its numbers have 8 bits."""
    there = {name: rule.cuda() if isinstance(rule, torch.Tensor) else rule for name, rule in rules.items()}
    mask = AttentionMask(2, 200, 200, torch.device("cuda"), **there)
    for query, shared in GROUPS[:2]:
        heads = Heads(query, shared, 64, dtype)
        if (obstacle := path.obstacle(mask, heads)) is not None:
            pytest.skip(f"needs a GPU where this does not hold: {obstacle}")
        shapes = [(2, query, 200, 64), (2, shared, 200, 64), (2, shared, 200, 64)]
        inputs = [torch.randn(shape, dtype=dtype, device="cuda", requires_grad=True) for shape in shapes]
        exact = [x.detach().double().requires_grad_() for x in inputs]
        attend, reference = path(mask, heads), ReferenceAttention(mask, replace(heads, dtype=torch.float64))
        assert_same(attend(*inputs).double(), reference(*exact), tolerance)
        for got, wanted in zip(gradients(attend, inputs), gradients(reference, exact), strict=True):
            assert_same(got.double(), wanted, 10 * tolerance)
