"""The model as a whole: packing, causality, heads, initialisation, config."""

from __future__ import annotations

import pytest
import torch

from seedbed.errors import ConfigError
from seedbed.model.config import ModelConfig
from seedbed.model.transformer import Transformer
from tests.random_models import GQA, random_model

DOCUMENTS = [[3, 14, 15, 9, 2], [6], [5, 35, 8, 9, 7, 9, 3], [2, 3, 8]]


def packed():
    """The documents in two rows of 9, padded with segment −1."""
    layout = [[0, 1, 3], [2]]
    tokens, segments, positions = (torch.zeros(2, 9, dtype=torch.long) for _ in range(3))
    segments -= 1
    places = {}
    for row, documents in enumerate(layout):
        at = 0
        for number, document in enumerate(documents):
            size = len(DOCUMENTS[document])
            tokens[row, at : at + size] = torch.tensor(DOCUMENTS[document])
            segments[row, at : at + size] = number
            positions[row, at : at + size] = torch.arange(size)
            places[document] = (row, slice(at, at + size))
            at += size
    return tokens, segments, positions, places


READINGS = {
    "all before": {},
    "both ways": {"causal": False},
    "windows": {"window": 3, "window_pattern": "SL"},
    "windows both ways": {"window": 3, "causal": False},
    "block-sparse": {"sparse_block": 3, "sparse_summary": 1},
    "ALiBi": {"positions": "alibi"},
    "ALiBi in windows": {"positions": "alibi", "window": 2},
    "short convolutions": {"short_convolution": 3},
}
"""What layers see."""


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("reading", READINGS.values(), ids=list(READINGS))
@torch.no_grad()
def test_packed_documents_equal_documents_alone(reading, dtype, tolerance):
    model = random_model(**reading).to(dtype)
    tokens, segments, positions, places = packed()
    together = model(tokens, segments_BT=segments, positions_BT=positions)
    for document, place in places.items():
        alone = model(torch.tensor([DOCUMENTS[document]]))[0]
        torch.testing.assert_close(together[place], alone, rtol=0, atol=tolerance)


@torch.no_grad()
def test_padding_gives_no_nan():
    tokens, segments, positions, _ = packed()
    assert random_model()(tokens, segments_BT=segments, positions_BT=positions).isfinite().all()


@torch.no_grad()
def test_no_position_sees_a_later_token():
    model = random_model().double()
    tokens = torch.arange(20)[None]
    changed = tokens.clone()
    changed[0, 12:] = 49
    before, after = model(tokens)[0], model(changed)[0]
    torch.testing.assert_close(after[:12], before[:12], rtol=0, atol=1e-12)
    assert (after[12:] - before[12:]).abs().amax(-1).min() > 1e-3


def positions_that_change(model, at, **where):
    """Which logits of a row of 20 move when the token at one position does."""
    tokens = torch.arange(20)[None]
    changed = tokens.clone()
    changed[0, at] = 49
    moved = (model(changed, **where) - model(tokens, **where))[0].abs().amax(-1)
    return [position for position, change in enumerate(moved.tolist()) if change > 1e-6]


@torch.no_grad()
def test_a_token_reaches_as_far_as_windows_of_all_layers_together():
    """Two layers of window 3: two positions a layer."""
    assert positions_that_change(random_model(window=3).double(), 8) == [8, 9, 10, 11, 12]


@torch.no_grad()
def test_a_model_that_reads_both_ways_sees_every_token_everywhere():
    model = random_model(causal=False).double()
    assert positions_that_change(model, 8) == list(range(20))
    with pytest.raises(ConfigError, match="reads both ways"):
        model.step(torch.tensor([1]), None, None)


@torch.no_grad()
def test_a_prefix_is_read_by_all_and_reads_nothing_behind_it():
    model, prefix_B = random_model().double(), torch.tensor([6])
    assert positions_that_change(model, 5, prefix_B=prefix_B) == list(range(20))
    assert positions_that_change(model, 6, prefix_B=prefix_B) == list(range(6, 20))


@torch.no_grad()
@pytest.mark.parametrize("reading", READINGS.values(), ids=list(READINGS))
def test_every_path_gives_the_same_logits(reading):
    model = random_model(**reading).double()
    tokens, segments, positions, _ = packed()
    logits = []
    for path in ("auto", "reference", "sdpa"):
        model.attend_by(path)
        logits.append(model(tokens, segments_BT=segments, positions_BT=positions))
    for other in logits[1:]:
        torch.testing.assert_close(other, logits[0], rtol=0, atol=1e-10)


def test_a_compiled_block_is_not_compiled_again_for_other_documents():
    """Masks change with every batch; their making must not be part of what a block compiles."""
    model, compilations = random_model(window=3, window_pattern="SL", short_convolution=2), []
    for block in model.blocks:
        block.compile(backend=lambda graph, _: compilations.append(graph) or graph.forward, fullgraph=True)
    tokens, segments, positions, _ = packed()
    for shift in range(4):
        model(tokens, segments_BT=segments.roll(shift, 0), positions_BT=positions.roll(shift, 0))
    assert len(compilations) == len(model.blocks)


def test_a_tied_head_is_the_embedding():
    model = random_model(tied=True)
    assert model.head is None
    x = torch.randn(3, 32)
    assert torch.equal(model.logits(x), x @ model.embedding.weight.T)


def test_an_own_head_begins_at_zero_so_that_every_token_is_equally_likely():
    model = Transformer(ModelConfig(vocab_size=50, **GQA))
    assert torch.equal(model(torch.arange(10)[None]), torch.zeros(1, 10, 50))


@pytest.mark.parametrize(("tied", "std"), [(False, 1.0), (True, 64**-0.5)])
def test_fresh_weights_have_the_promised_spread(tied, std):
    torch.manual_seed(0)
    model = Transformer(ModelConfig(vocab_size=500, layers=1, width=64, ff_width=128, tied=tied))
    assert model.embedding.weight.std().item() == pytest.approx(std, rel=0.03)
    block = model.blocks[0]
    for linear in (block.attention.query, block.attention.key, block.attention.value, block.feedforward.gate):
        assert linear.weight.std().item() == pytest.approx(64**-0.5, rel=0.05)
    for linear in (block.attention.output, block.feedforward.down):
        assert not linear.weight.any()


def test_the_same_seed_makes_the_same_model():
    def build(seed):
        torch.manual_seed(seed)
        return Transformer(ModelConfig(vocab_size=50, **GQA)).state_dict()

    first, again, other = build(1), build(1), build(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])


def test_sizes_left_out_are_filled_in():
    config = ModelConfig(vocab_size=100, width=192).resolve()
    assert (config.heads, config.kv_heads, config.head_width, config.ff_width) == (3, 3, 64, 512)
    assert config.resolve() == config


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({}, "vocab_size is not set"),
        ({"vocab_size": 5, "width": 100, "heads": 3}, "width must be a multiple of heads, got 100 and 3"),
        ({"vocab_size": 5, "heads": 4, "kv_heads": 3}, "heads must be a multiple of kv_heads, got 4 and 3"),
        ({"vocab_size": 5, "heads": 4, "head_width": 7}, "head_width must be even"),
        ({"vocab_size": 5, "width": 6, "heads": 2}, "head_width must be even"),
        ({"vocab_size": 5, "context": 2**20 + 1}, "context must be between 1 and 1048576, got 1048577"),
        ({"vocab_size": 5, "width": 10**400}, "width must be between 1 and 1048576"),
        ({"vocab_size": 5, "layers": 0}, "layers must be between 1 and 10000, got 0"),
        ({"vocab_size": 5, "rope_base": float("nan")}, "rope_base must be between 1 and 1000000000000, got nan"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(values, problem):
    with pytest.raises(ConfigError, match=problem):
        ModelConfig(**values).resolve()
