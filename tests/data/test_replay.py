"""Old rows among new ones: the share that was asked for, in an order that depends on nothing but the index."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seedbed.data.batch import IGNORE, TokenBatch
from seedbed.data.packing import PackedSource
from seedbed.data.replay import ReplaySource
from tests.tiny import Rows

LENGTH = 6
OLD = 100
"""The first id of old rows; new ones are below."""


def new_rows(count: int = 10) -> PackedSource:
    """Row i is one document of i + 1 and its end, of which the second half is learned."""
    mask = np.arange(LENGTH) >= LENGTH // 2
    return PackedSource([(np.full(LENGTH, i + 1, dtype=np.uint32), mask) for i in range(count)], LENGTH, 0, pad_id=0)


def old_rows(count: int = 4) -> Rows:
    tokens_NT = torch.arange(OLD, OLD + count)[:, None].expand(count, LENGTH)
    return Rows(tokens_NT, tokens_NT + 1, "old")


def rows(batch: TokenBatch) -> list[int]:
    return batch.tokens_BT[:, 0].tolist()


@given(st.floats(0, 0.9), st.integers(0, 300), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_a_sample_is_a_pure_function_of_its_index(share, first, count):
    source = ReplaySource(new_rows(), old_rows(), share)
    together = source.batch(first, count)
    for name in ("tokens_BT", "targets_BT", "segments_BT", "positions_BT"):
        alone = [getattr(source.batch(first + i, 1), name) for i in range(count)]
        assert torch.equal(getattr(together, name), torch.cat(alone))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.9])
def test_the_share_is_met_and_spread_evenly(share):
    kinds = [row >= OLD for row in rows(ReplaySource(new_rows(), old_rows(), share).batch(0, 1000))]
    assert all(abs(sum(kinds[:n]) - share * n) < 1 for n in range(1, 1001))


def test_each_source_keeps_its_own_order_and_loses_nothing():
    source = ReplaySource(new_rows(), old_rows(), 0.3)
    both = rows(source.batch(0, source.samples))
    new = [row for row in both if row < OLD]
    assert new == rows(new_rows().batch(0, len(new))) and Counter(new).keys() == set(range(1, 11))
    old = [row for row in both if row >= OLD]
    assert old == rows(old_rows().batch(0, len(old)))


def test_every_token_of_an_old_row_is_a_target_and_no_row_sees_another():
    batch = ReplaySource(new_rows(), old_rows(), 0.5).batch(0, 8)
    is_old_B = batch.tokens_BT[:, 0] >= OLD
    targets_B = (batch.targets_BT != IGNORE).sum(1)
    assert set(targets_B[is_old_B].tolist()) == {LENGTH} and set(targets_B[~is_old_B].tolist()) == {LENGTH // 2}
    assert torch.equal(batch.positions_BT, torch.arange(LENGTH).expand(8, LENGTH))
    assert batch.units == int(targets_B.sum()) and not batch.segments_BT.any()


def test_the_fingerprint_follows_both_sources_and_the_share():
    other = old_rows()
    other.fingerprint = "other"
    sources = [(new_rows(), old_rows(), 0.1), (new_rows(), old_rows(), 0.2), (new_rows(9), old_rows(), 0.1)]
    assert len({ReplaySource(*given).fingerprint for given in [*sources, (new_rows(), other, 0.1)]}) == 4
