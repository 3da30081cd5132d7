"""The cache gives what a full forward pass gives.

Shape suffixes: B rows, T positions.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seedbed.model.cache import KVCache
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


def cached_logits(model, tokens_BT, cuts):
    """Logits of `tokens_BT` read piece by piece, a piece ending at each cut."""
    rows, length = tokens_BT.shape
    weight = model.embedding.weight
    cache = KVCache(model.config, rows, length, device=weight.device, dtype=weight.dtype)
    pieces = []
    for start, end in zip([0, *cuts], [*cuts, length], strict=True):
        positions_BT = torch.arange(start, end).expand(rows, -1)
        pieces.append(model.logits(model.extend(tokens_BT[:, start:end], positions_BT, cache, end)))
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
def test_rows_of_different_lengths_share_a_cache(model):
    """Prompts of 3, 9 and 6 tokens padded on the right, then five more tokens each at their own positions."""
    lengths, more = [3, 9, 6], 5
    rows = [some_tokens(3, 14)[row, : length + more] for row, length in enumerate(lengths)]
    weight = model.embedding.weight
    cache = KVCache(model.config, 3, 14, device=weight.device, dtype=weight.dtype)
    padded = torch.zeros(3, 9, dtype=torch.long)
    for row, length in enumerate(lengths):
        padded[row, :length] = rows[row][:length]
    first = model.logits(model.extend(padded, torch.arange(9).expand(3, -1), cache, 9))
    got = [[first[row, :length]] for row, length in enumerate(lengths)]
    for step in range(more):
        positions_BT = torch.tensor([[length + step] for length in lengths])
        tokens_BT = torch.stack([rows[row][position] for row, position in enumerate(positions_BT)])
        logits = model.logits(model.extend(tokens_BT, positions_BT, cache, 9 + step + 1))
        for row in range(3):
            got[row].append(logits[row])
    for row in range(3):
        assert_close(torch.cat(got[row]), model(rows[row][None])[0])


@torch.no_grad()
def test_rows_that_stay_keep_what_they_have_read(dtype):
    model = random_model().to(dtype)
    tokens_BT = some_tokens(4, 10)
    cache = KVCache(model.config, 4, 10, device=torch.device("cpu"), dtype=dtype)
    model.extend(tokens_BT[:, :6], torch.arange(6).expand(4, -1), cache, 6)
    stay = torch.tensor([3, 1])
    cache.keep_rows(stay)
    got = model.logits(model.extend(tokens_BT[stay, 6:], torch.arange(6, 10).expand(2, -1), cache, 10))
    assert_close(got, model(tokens_BT[stay])[:, 6:])


@torch.no_grad()
def test_what_lies_in_later_slots_changes_nothing():
    model = random_model()
    tokens_BT = some_tokens(1, 8)
    cache = KVCache(model.config, 1, 32, device=torch.device("cpu"), dtype=torch.float32)
    cache.keys_LBGSK.fill_(1e4)
    cache.values_LBGSK.fill_(-1e4)
    got = model.logits(model.extend(tokens_BT, torch.arange(8)[None], cache, 20))
    assert_close(got, model(tokens_BT))
