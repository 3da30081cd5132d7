"""Packed rows: nothing lost, nothing twice, nothing leaking from one document into the next."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seedbed.data.batches.batch import IGNORE
from seedbed.data.batches.packing import PackedSource
from seedbed.errors import DataError

LENGTH = 16
PAD = 0


@st.composite
def documents(draw):
    sizes = draw(st.lists(st.integers(2, LENGTH), min_size=1, max_size=40))
    random = np.random.default_rng(draw(st.integers(0, 999)))
    encoded = []
    for size in sizes:
        mask = random.random(size) < 0.5
        mask[random.integers(1, size)] = True
        encoded.append((random.integers(1, 50, size).astype(np.uint32), mask))
    return encoded


def many(count, seed=0, longest=LENGTH):
    random = np.random.default_rng(seed)
    sizes = random.integers(2, longest + 1, count)
    return [(np.arange(1, size + 1, dtype=np.uint32), np.ones(size, dtype=bool)) for size in sizes]


def unpack(source, epoch=0):
    """The documents of an epoch read back from the batch, as (ids, what is learned: position -> target)."""
    batch = source.batch(epoch * source.samples, source.samples)
    found = []
    for tokens, targets, segments, positions in zip(
        batch.tokens_BT, batch.targets_BT, batch.segments_BT, batch.positions_BT, strict=True
    ):
        for segment in range(int(segments.max()) + 1):
            here = segments == segment
            assert positions[here].tolist() == list(range(int(here.sum())))
            found.append((tuple(tokens[here].tolist()), tuple(targets[here].tolist())))
        padding = segments == -1
        assert (tokens[padding] == PAD).all() and (targets[padding] == IGNORE).all()
        assert not padding[: int((~padding).sum())].any()  # only at the end
    return found


@settings(max_examples=80, deadline=None)
@given(encoded=documents(), seed=st.integers(0, 5))
def test_packing_loses_nothing_repeats_nothing_and_keeps_the_masks(encoded, seed):
    source = PackedSource(encoded, LENGTH, seed, PAD)
    expected = Counter(
        (
            tuple(ids.tolist()),
            (*(int(i) if m else IGNORE for i, m in zip(ids[1:], mask[1:], strict=True)), IGNORE),
        )
        for ids, mask in encoded
    )
    assert Counter(unpack(source)) == expected
    assert Counter(unpack(source, epoch=3)) == expected


def test_a_batch_is_a_pure_function_of_its_index():
    source, fresh = PackedSource(many(300), LENGTH, 7, PAD), PackedSource(many(300), LENGTH, 7, PAD)
    whole = source.batch(0, 3 * source.samples)
    for first, count in ((2 * source.samples - 3, 7), (5, 1), (0, 4)):
        part = fresh.batch(first, count)
        for name in ("tokens_BT", "targets_BT", "segments_BT", "positions_BT"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[first : first + count])
    assert source.fingerprint == fresh.fingerprint
    assert (whole.tokens_BT.dtype, whole.segments_BT.dtype) == (torch.int64, torch.int32)


def test_epochs_differ_in_order_and_seeds_in_rows():
    encoded = many(300)
    source = PackedSource(encoded, LENGTH, 7, PAD)
    first, second = source.batch(0, source.samples), source.batch(source.samples, source.samples)
    assert not torch.equal(first.tokens_BT, second.tokens_BT)
    assert sorted(first.tokens_BT.tolist()) == sorted(second.tokens_BT.tolist())
    assert PackedSource(encoded, LENGTH, 8, PAD).batch(0, 9).tokens_BT.tolist() != first.tokens_BT[:9].tolist()


def test_the_fingerprint_follows_everything():
    encoded = many(5)
    changed = [(ids.copy(), mask.copy()) for ids, mask in encoded]
    changed[2][1][0] = False
    prints = {
        PackedSource(*arguments).fingerprint
        for arguments in [(encoded, 16, 1, 0), (encoded, 17, 1, 0), (encoded, 16, 2, 0), (encoded, 16, 1, 3),
                          (changed, 16, 1, 0), (encoded[::-1], 16, 1, 0)]
    }  # fmt: skip
    assert len(prints) == 6


def test_little_of_a_row_is_padding():
    source = PackedSource(many(10_000, longest=200), 512, 0, PAD)
    tokens = sum(len(ids) for ids, _ in many(10_000, longest=200))
    assert source.padding == pytest.approx(1 - tokens / (source.samples * 512))
    assert source.padding < 0.01


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ((np.arange(17), np.ones(17, dtype=bool)), "has 17 tokens, but a row holds 16"),
        ((np.arange(4), np.zeros(4, dtype=bool)), "its mask is empty"),
        ((np.arange(4), np.array([True, False, False, False])), "its mask is empty"),
        ((np.arange(4), np.ones(3, dtype=bool)), "has 4 tokens but a mask of 3"),
    ],
)
def test_a_document_that_cannot_be_packed_is_named(document, problem):
    with pytest.raises(DataError, match=f"conversation 3 .*{problem}|conversation 3 {problem}"):
        PackedSource([*many(2), document], LENGTH, 0, PAD)
    with pytest.raises(DataError, match=r"^chat\.jsonl, row 9 has"):
        PackedSource([*many(2), document], LENGTH, 0, PAD, names=["", "", "chat.jsonl, row 9"])


def test_no_document_at_all_is_an_error():
    with pytest.raises(DataError, match="no conversation"):
        PackedSource([], LENGTH, 0, PAD)
