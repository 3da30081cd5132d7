"""The cache gives what a full forward pass gives.

Shape suffixes: B rows, T positions.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seedbed.model.accounting import cache_bytes
from seedbed.model.attention_paths.path import Heads
from seedbed.model.attention_paths.reference import ReferenceAttention
from seedbed.model.cache import BLOCK, PagedCache, Places
from seedbed.model.masks import AttentionMask
from seedbed.model.transformer import Transformer
from tests.random_configs import configs
from tests.random_models import random_model, randomise

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
SHAPES = {
    "grouped": {},
    "each its own": {"kv_heads": 4},
    "one for all": {"kv_heads": 1, "tied": True},
    "windows": {"window": 4, "window_pattern": "SSL", "layers": 3},
    "block-sparse": {"sparse_block": 4, "sparse_summary": 1},
    "ALiBi": {"positions": "alibi"},
    "ALiBi in windows": {"positions": "alibi", "window": 3},
    "short convolutions": {"short_convolution": 4},
}


@pytest.fixture(params=TOLERANCE, ids=str)
def dtype(request):
    return request.param


@pytest.fixture(params=SHAPES.values(), ids=list(SHAPES))
def model(request, dtype):
    return random_model(**request.param).to(dtype)


def some_tokens(rows, length):
    return torch.randint(50, (rows, length), generator=torch.Generator().manual_seed(1))


class Reader:
    """Sequences in a cache of blocks that lie in no order, read piece by piece."""

    def __init__(self, model, sequences, length, spare=1):
        self.model = model
        weight = model.embedding.weight
        width = -(-length // BLOCK)
        self.cache = PagedCache(model.config, sequences * width + spare, device=weight.device, dtype=weight.dtype)
        order = torch.randperm(sequences * width + spare, generator=torch.Generator().manual_seed(0))
        self.tables_QW = order[: sequences * width].view(sequences, width).int()
        self.read = [0] * sequences

    def logits(self, pieces):
        """Of the next tokens of some sequences, by their numbers: a list for each of these."""
        tokens_N = torch.cat([tokens for _, tokens in pieces])
        tables = [self.tables_QW[number].tolist() for number, _ in pieces]
        spans = [(self.read[number], len(tokens)) for number, tokens in pieces]
        for number, tokens in pieces:
            self.read[number] += len(tokens)
        x_ND = self.model.step(tokens_N, Places.of(tables, spans, tokens_N.device), self.cache)
        return self.model.logits(x_ND).split([len(tokens) for _, tokens in pieces])


def cached_logits(model, tokens_BT, cuts):
    """Logits of `tokens_BT` read piece by piece, a piece ending at each cut."""
    rows, length = tokens_BT.shape
    reader, pieces = Reader(model, rows, length), []
    for start, end in zip([0, *cuts], [*cuts, length], strict=True):
        pieces.append(torch.stack(reader.logits([(row, tokens_BT[row, start:end]) for row in range(rows)])))
    return torch.cat(pieces, dim=1)


def assert_close(got, wanted):
    torch.testing.assert_close(got, wanted, rtol=0, atol=TOLERANCE[wanted.dtype])


@torch.no_grad()
@pytest.mark.parametrize(
    "cuts", [[], [5], [1, 2, 9], [7, 8, 15], list(range(1, 16))], ids=["at once", "two", "four", "uneven", "by token"]
)
def test_cached_logits_equal_those_of_a_full_pass(model, cuts):
    tokens_BT = some_tokens(3, 16)
    assert_close(cached_logits(model, tokens_BT, cuts), model(tokens_BT))


@torch.no_grad()
@settings(max_examples=40, deadline=None)
@given(configs(), st.sets(st.integers(1, 11)))
def test_cached_logits_of_any_architecture_equal_those_of_a_full_pass(config, cuts):
    model = Transformer(config).double().eval()
    randomise(model)
    tokens_BT = some_tokens(2, 12) % config.vocab_size
    assert_close(cached_logits(model, tokens_BT, sorted(cuts)), model(tokens_BT))


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_sequences_of_different_lengths_go_through_together(shape, dtype):
    """Prompts in pieces beside others that go on token by token, over the border of a block."""
    model = random_model(**shape, context=200).to(dtype)
    texts = [some_tokens(3, 150)[row, :length] for row, length in enumerate([70, 150, 66])]
    reader, got = Reader(model, 3, 150), [[], [], []]
    steps = [{0: 3, 1: 100}, {0: 60, 2: 1}, {0: 1, 1: 49, 2: 63}, {2: 1, 0: 1}, {0: 5, 1: 1, 2: 1}]
    for step in steps:
        pieces = [(row, texts[row][reader.read[row] :][:count]) for row, count in step.items()]
        for (row, _), logits in zip(pieces, reader.logits(pieces), strict=True):
            got[row].append(logits)
    assert reader.read == [70, 150, 66]
    for row in range(3):
        assert_close(torch.cat(got[row]), model(texts[row][None])[0])


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_where_all_decode_they_may_be_attended_to_at_once(shape, dtype):
    """As on a GPU: sequences of different lengths, one token each, over the border of a block."""
    model = random_model(**shape, context=200).to(dtype)
    texts = [some_tokens(3, 80)[row, :length] for row, length in enumerate([70, 20, 80])]
    reader = Reader(model, 3, 150)
    reader.cache.by_kernel, reader.cache.side_by_side = False, True
    reader.logits([(row, text[:-10]) for row, text in enumerate(texts)])
    got = [reader.logits([(row, text[place - 10 :][:1]) for row, text in enumerate(texts)]) for place in range(10)]
    for row, text in enumerate(texts):
        assert_close(torch.cat([logits[row] for logits in got]), model(text[None])[0, -10:])


@torch.no_grad()
def test_what_lies_behind_a_sequence_changes_nothing():
    model, tokens_BT = random_model(), some_tokens(1, 8)
    reader = Reader(model, 1, 8)
    reader.cache.keys_LMGPKI.fill_(1e4)
    reader.cache.values_LMGSK.fill_(math.nan)
    assert_close(reader.logits([(0, tokens_BT[0])])[0], model(tokens_BT)[0])


KINDS = [
    {},
    {"kv_heads": 1},
    {"kv_heads": 4},
    {"window": 20},
    {"positions": "alibi"},
    {"sparse_block": 16, "sparse_summary": 2},
]


STORED = {"fp32": None, "fp16": torch.float16, "int8": torch.int8}


def whole(x):
    """The nearest whole numbers of −127 to 127, times what one of them stands for in that head and position."""
    step = x.abs().amax(-1, keepdim=True) / 127
    return (x / step).round() * step


def random_heads(config, length):
    generator = torch.Generator().manual_seed(0)
    q_1HNK = torch.randn(1, config.heads, length, config.head_width, generator=generator)
    k_1GNK, v_1GNK = torch.randn(2, 1, config.kv_heads, length, config.head_width, generator=generator)
    return q_1HNK, k_1GNK, v_1GNK


def attended(cache, heads, cuts):
    """What attention of the first layer gives, read piece by piece into blocks that lie in no order."""
    parts, length = [], heads[0].shape[2]
    for start, end in zip([0, *cuts], [*cuts, length], strict=True):
        layer = cache.layers(Places.of([[4, 1, 3, 0]], [(start, end - start)], torch.device("cpu")))[0]
        parts.append(layer(*(x[:, :, start:end] for x in heads)))
    return torch.cat(parts, dim=2)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("head_width", [16, 32, 64, 96, 128])
@pytest.mark.parametrize("stored", STORED)
def test_the_kernel_gives_each_token_the_same_bits_whatever_is_read_beside_it(kind, head_width, stored):
    """Attention alone; that it is the kernel which computes is asserted."""
    config = random_model(width=64, heads=4, head_width=head_width, context=300, **({"kv_heads": 2} | kind)).config
    heads = q_1HNK, k_1GNK, v_1GNK = random_heads(config, 200)
    outs = []
    for cuts in ([], [1, 2, 70, 71, 140], list(range(1, 200))):
        cache = PagedCache(config, 5, device=torch.device("cpu"), dtype=torch.float32, stored=STORED[stored])
        assert cache.by_kernel
        outs.append(attended(cache, heads, cuts))
    assert torch.equal(outs[0], outs[1]) and torch.equal(outs[0], outs[2])
    mask = AttentionMask(1, 200, 200, torch.device("cpu")).of_layers(config)[0]
    reference = ReferenceAttention(mask, Heads(4, config.kv_heads, head_width, torch.float32))
    as_held = {"fp32": torch.Tensor.float, "fp16": torch.Tensor.half, "int8": whole}[stored]
    wanted = reference(q_1HNK.double(), as_held(k_1GNK).double(), as_held(v_1GNK).double())
    torch.testing.assert_close(outs[0].double(), wanted, rtol=0, atol=2e-6)


@torch.no_grad()
@pytest.mark.parametrize("head_width", [16, 24, 128])
@pytest.mark.parametrize("stored", ["fp16", "int8"])
def test_without_the_kernel_the_same_is_stored_and_read(head_width, stored):
    config = random_model(width=64, heads=4, head_width=head_width, context=300).config
    heads = random_heads(config, 200)
    caches, outs = [], []
    for by_kernel in (True, False):
        cache = PagedCache(config, 5, device=torch.device("cpu"), dtype=torch.float32, stored=STORED[stored])
        cache.by_kernel &= by_kernel
        outs.append(attended(cache, heads, [70, 71]))
        caches.append(cache)
    assert caches[0].by_kernel == (head_width != 24)
    assert caches[0].keys_LMGPKI.dtype == STORED[stored]
    for part in ("keys_LMGPKI", "values_LMGSK", "scales_LM2GS"):
        assert torch.equal(*(getattr(cache, part)[0] for cache in caches))
    torch.testing.assert_close(*outs, rtol=0, atol=2e-6)


@torch.no_grad()
def test_whole_numbers_are_near_and_take_half_of_fp16():
    """A number is off by half a step at most, a 254th of the largest of its head; what is read is off by less."""
    config = random_model(width=64, heads=4, head_width=64, context=300).config
    heads = random_heads(config, 200)
    outs, sizes = [], []
    for stored in (None, torch.float16, torch.int8):
        cache = PagedCache(config, 5, device=torch.device("cpu"), dtype=torch.float32, stored=stored)
        outs.append(attended(cache, heads, []))
        sizes.append(cache.keys_LMGPKI.nbytes + cache.values_LMGSK.nbytes + cache.scales_LM2GS.nbytes)
        assert sizes[-1] == cache_bytes(config, 5 * BLOCK, cache.keys_LMGPKI.element_size())
    assert sizes[0] == 2 * sizes[1] and sizes[2] == sizes[1] * (64 + 4) // 128
    held = cache.keys_LMGPKI[0, 4].transpose(2, 3).flatten(1, 2) * cache.scales_LM2GS[0, 4, 0, :, :, None]
    off, most = (held - heads[1][0, :, :BLOCK]).abs().amax(-1), heads[1][0, :, :BLOCK].abs().amax(-1)
    assert (off <= most / 253.9).all()
    assert 1e-4 < (outs[2] - outs[0]).norm() / outs[0].norm() < 0.01


@torch.no_grad()
@pytest.mark.parametrize("by_kernel", [True, False])
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_value_that_is_no_number_stays_none_for_those_who_read_it(by_kernel, wrong):
    config = random_model(width=64, heads=4, head_width=16, context=300).config
    heads = random_heads(config, 100)
    heads[2][0, 0, 40, 7] = wrong
    cache = PagedCache(config, 5, device=torch.device("cpu"), dtype=torch.float32, stored=torch.int8)
    cache.by_kernel &= by_kernel
    out_HNK = attended(cache, heads, range(1, 100))[0]
    assert out_HNK[:2, 40:, 7].isnan().all()
    assert out_HNK[:, :40].isfinite().all() and out_HNK[2:].isfinite().all()


@pytest.mark.parametrize("by_kernel", [True, False])
def test_what_half_precision_cannot_hold_becomes_its_largest_number(by_kernel):
    config = random_model(width=64, heads=4, head_width=16).config
    cache = PagedCache(config, 1, device=torch.device("cpu"), dtype=torch.float32, stored=torch.float16)
    cache.by_kernel &= by_kernel
    layer = cache.layers(Places.of([[0]], [(0, 1)], torch.device("cpu")))[0]
    q_1HNK, k_1GNK = torch.zeros(1, 4, 1, 16), torch.zeros(1, config.kv_heads, 1, 16)
    v_1GNK = torch.full_like(k_1GNK, -1e6)
    assert (layer(q_1HNK, k_1GNK, v_1GNK) == -65504).all()
