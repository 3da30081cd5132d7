"""The cache gives what a full forward pass gives.

Shape suffixes: B rows, T positions.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
    reader.cache.keys_LMGKS.fill_(1e4)
    reader.cache.values_LMGSK.fill_(math.nan)
    assert_close(reader.logits([(0, tokens_BT[0])])[0], model(tokens_BT)[0])


KINDS = [{}, {"kv_heads": 1}, {"window": 20}, {"positions": "alibi"}, {"sparse_block": 16, "sparse_summary": 2}]


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("head_width", [16, 32, 64, 96, 128])
@pytest.mark.parametrize("in_half", [False, True], ids=["fp32", "fp16"])
def test_the_kernel_gives_each_token_the_same_bits_whatever_is_read_beside_it(kind, head_width, in_half):
    """Attention alone; that it is the kernel which computes is asserted."""
    config = random_model(width=64, heads=4, head_width=head_width, context=300, **({"kv_heads": 2} | kind)).config
    generator = torch.Generator().manual_seed(0)
    q_1HNK = torch.randn(1, 4, 200, head_width, generator=generator)
    k_1GNK, v_1GNK = torch.randn(2, 1, config.kv_heads, 200, head_width, generator=generator)
    outs = []
    for cuts in ([], [1, 2, 70, 71, 140], list(range(1, 200))):
        cache = PagedCache(config, 5, device=torch.device("cpu"), dtype=torch.float32, in_half=in_half)
        parts = []
        for start, end in zip([0, *cuts], [*cuts, 200], strict=True):
            places = Places.of([[4, 1, 3, 0]], [(start, end - start)], torch.device("cpu"))
            layer = cache.layers(places)[0]
            assert cache.by_kernel
            parts.append(layer(*(x[:, :, start:end] for x in (q_1HNK, k_1GNK, v_1GNK))))
        outs.append(torch.cat(parts, dim=2))
    assert torch.equal(outs[0], outs[1]) and torch.equal(outs[0], outs[2])
    mask = AttentionMask(1, 200, 200, torch.device("cpu")).of_layers(config)[0]
    heads = Heads(4, config.kv_heads, head_width, torch.float32)
    if in_half:
        k_1GNK, v_1GNK = k_1GNK.half(), v_1GNK.half()
    wanted = ReferenceAttention(mask, heads)(q_1HNK.double(), k_1GNK.double(), v_1GNK.double())
    torch.testing.assert_close(outs[0].double(), wanted, rtol=0, atol=2e-6)


def test_what_half_precision_cannot_hold_becomes_its_largest_number():
    config = random_model(width=64, heads=4, head_width=16).config
    cache = PagedCache(config, 1, device=torch.device("cpu"), dtype=torch.float32, in_half=True)
    layer = cache.layers(Places.of([[0]], [(0, 1)], torch.device("cpu")))[0]
    q_1HNK, k_1GNK = torch.zeros(1, 4, 1, 16), torch.zeros(1, config.kv_heads, 1, 16)
    v_1GNK = torch.full_like(k_1GNK, -1e6)
    assert (layer(q_1HNK, k_1GNK, v_1GNK) == -65504).all()
