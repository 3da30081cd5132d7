"""Who may look at whom: each rule as its paper draws it, and all of them mixed."""

from __future__ import annotations

import pytest
import torch
import transformers
from hypothesis import given, settings
from transformers.models.bloom.modeling_bloom import build_alibi_tensor

from seedbed.errors import ConfigError
from seedbed.model.config import ModelConfig
from seedbed.model.masks import AttentionMask, BlockSparse, alibi_slopes
from tests.random_masks import CPU, cases
from tests.random_models import GQA


def whole(length: int, **rules) -> AttentionMask:
    return AttentionMask(1, length, length, CPU, **rules)


def drawn(mask: AttentionMask, row: int = 0) -> list[str]:
    """A line for each query, x for what it reads."""
    return ["".join("x" if seen else "." for seen in line) for line in mask.visible_BTS()[row].tolist()]


@settings(max_examples=200)
@given(cases())
def test_a_key_is_visible_when_every_rule_allows_it(case):
    mask = case.mask
    places = (range(n) for n in (mask.rows, mask.queries, mask.keys))
    rows, queries, keys = places
    visible = mask.visible_BTS().expand(mask.rows, -1, -1).tolist()
    assert visible == [[[case.visible(b, t, s) for s in keys] for t in queries] for b in rows]


def test_a_window_holds_the_query_itself():
    assert drawn(whole(5, window=2)) == ["x....", "xx...", ".xx..", "..xx.", "...xx"]


def test_a_window_of_a_model_that_reads_both_ways_is_as_wide_on_both_sides():
    assert drawn(whole(5, window=2, causal=False)) == ["xx...", "xxx..", ".xxx.", "..xxx", "...xx"]


def test_a_prefix_is_read_by_all_of_it():
    assert drawn(whole(4, prefix_B=torch.tensor([2]))) == ["xx..", "xx..", "xxx.", "xxxx"]


def test_a_block_and_the_ends_of_all_blocks_before_are_read():
    assert drawn(whole(7, sparse=BlockSparse(3, 1))) == [
        "x......",
        "xx.....",
        "xxx....",
        "..xx...",
        "..xxx..",
        "..xxxx.",
        "..x..xx",
    ]


def test_documents_do_not_see_each_other_and_padding_sees_nothing():
    mask = whole(5, segments_BT=torch.tensor([[4, 4, 0, -1, -1]]))
    assert drawn(mask) == ["x....", "xx...", "..x..", ".....", "....."]


def test_a_cached_position_sees_the_slots_up_to_its_own():
    mask = whole(5).reading(torch.tensor([[2, 3], [0, 1]]), 5)
    assert drawn(mask, 0) == ["xxx..", "xxxx."] and drawn(mask, 1) == ["x....", "xx..."]


def config(**fields) -> ModelConfig:
    return ModelConfig(vocab_size=5, **{**GQA, "layers": 5, **fields}).resolve()


def test_a_pattern_is_repeated_over_the_layers():
    shaped = config(window=4, sparse_block=6, sparse_summary=2, window_pattern="SBL")
    masks = whole(20).of_layers(shaped)
    assert [(mask.window, mask.sparse) for mask in masks] == [
        (4, None),
        (None, BlockSparse(6, 2)),
        (None, None),
        (4, None),
        (None, BlockSparse(6, 2)),
    ]


@pytest.mark.parametrize(("fields", "kinds"), [({}, "LLLLL"), ({"window": 3}, "SSSSS"), ({"sparse_block": 9}, "BBBBB")])
def test_a_pattern_that_is_left_out_follows_what_is_set(fields, kinds):
    assert config(**fields).layer_kinds == kinds


def test_layers_that_see_the_same_share_one_mask():
    masks = whole(20).of_layers(config(window=4, window_pattern="SSL"))
    assert masks[0] is masks[1] is masks[3] and masks[2] is not masks[0]


def test_what_is_as_wide_as_the_row_hides_nothing_and_needs_no_mask():
    shaped = config(window=20, sparse_block=20, window_pattern="SBL")
    assert len(set(whole(20).of_layers(shaped))) == 1
    assert whole(20).of_layers(shaped)[0].is_plain
    assert not whole(21).of_layers(shaped)[0].is_plain and not whole(21).of_layers(shaped)[1].is_plain


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"window": 0}, "window must be between 1 and"),
        ({"sparse_block": 4, "sparse_summary": 5}, "sparse_summary must be between 1 and 4"),
        ({"window": 4, "sparse_block": 8}, "window_pattern must say which layers have which"),
        ({"window": 4, "window_pattern": "SX"}, "letters S, B and L, got 'SX'"),
        ({"window": 4, "window_pattern": ""}, "letters S, B and L, got ''"),
        ({"window_pattern": "SL"}, "has S, but window is not set"),
        ({"window": 4, "window_pattern": "L"}, "window is 4, but window_pattern L has no S"),
        ({"window_pattern": "B"}, "has B, but sparse_block is not set"),
    ],
)
def test_a_pattern_that_does_not_fit_is_refused(fields, problem):
    with pytest.raises(ConfigError, match=problem):
        config(**fields)


def test_slopes_of_eight_heads_are_those_of_the_paper():
    assert alibi_slopes(8) == tuple(2.0**-power for power in range(1, 9))


@pytest.mark.parametrize("heads", [1, 2, 3, 5, 6, 12, 16, 20, 24, 71])
def test_slopes_are_those_of_bloom(heads):
    """transformers' BLOOM, which took the paper's code over; its bias grows with the key's place."""
    theirs = build_alibi_tensor(torch.ones(1, 2), heads, torch.float64)[:, 0, 1]
    torch.testing.assert_close(torch.tensor(alibi_slopes(heads), dtype=torch.float64), theirs, rtol=1e-6, atol=0)
    assert len(alibi_slopes(heads)) == heads, transformers.__version__
