"""Batches are a pure function of seed and sample index, and cover every token once an epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seedbed.data.batches.batch import IGNORE, TokenBatch
from seedbed.data.batches.loader import WindowSource
from seedbed.data.tokens import TokenStore, open_tokens
from seedbed.errors import ConfigError, CorruptionError, DataError


@pytest.fixture(scope="module")
def store(tokens_folder) -> TokenStore:
    return open_tokens(tokens_folder).val


def test_a_batch_is_windows_of_the_store_and_their_next_tokens(store):
    source = WindowSource(store, 64, seed=3)
    batch = source.batch(5, 4)
    assert batch.tokens_BT.dtype == batch.targets_BT.dtype == torch.int64
    assert batch.tokens_BT.shape == (4, 64) and batch.units == 256
    for row, window in enumerate(source.windows(5, 4).tolist()):
        expected = store.read(window * 64, window * 64 + 65).astype(np.int64)
        assert batch.tokens_BT[row].tolist() == expected[:-1].tolist()
        assert batch.targets_BT[row].tolist() == expected[1:].tolist()


@given(st.integers(1, 5000), st.integers(0, 3), st.data())
def test_the_same_samples_come_however_they_are_asked_for(store, length, seed, data):
    length = min(length, store.n_tokens - 1)
    source = WindowSource(store, length, seed)
    first = data.draw(st.integers(0, 3 * source.samples))
    count = data.draw(st.integers(1, 24))
    cuts = sorted(data.draw(st.sets(st.integers(1, count), max_size=4)) | {count})
    whole = source.batch(first, count)
    fresh = WindowSource(store, length, seed)
    parts = [fresh.batch(first + a, b - a) for a, b in reversed(list(zip([0, *cuts], cuts, strict=False)))][::-1]
    assert torch.equal(whole.tokens_BT, torch.cat([part.tokens_BT for part in parts]))
    assert torch.equal(whole.targets_BT, torch.cat([part.targets_BT for part in parts]))


def test_an_epoch_has_every_window_once_and_the_next_another_order(store):
    source = WindowSource(store, 100, seed=0)
    n = source.samples
    assert n == (store.n_tokens - 1) // 100
    first, second = source.windows(0, n), source.windows(n, n)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(n))
    assert first.tolist() != second.tolist()
    across = source.windows(n - 2, 4).tolist()
    assert across == [*first[-2:].tolist(), *second[:2].tolist()]
    assert source.windows(0, n).tolist() != WindowSource(store, 100, seed=1).windows(0, n).tolist()


def test_targets_of_an_epoch_are_each_token_but_the_first_once(store):
    source = WindowSource(store, 7, seed=0)
    targets = source.batch(0, source.samples).targets_BT
    tokens = store.read(1, source.samples * 7 + 1)
    assert np.bincount(targets.flatten()).tolist() == np.bincount(tokens).tolist()
    assert store.n_tokens - 1 - targets.numel() < 7


def test_the_fingerprint_names_data_length_and_seed(store, tokens_folder):
    fingerprint = WindowSource(store, 64, 0).fingerprint
    assert fingerprint == WindowSource(open_tokens(tokens_folder).val, 64, 0).fingerprint
    others = [
        WindowSource(store, 65, 0),
        WindowSource(store, 64, 1),
        WindowSource(open_tokens(tokens_folder).train, 64, 0),
    ]
    assert len({fingerprint, *(other.fingerprint for other in others)}) == 4


def test_a_corpus_smaller_than_one_window_is_refused(store):
    whole = WindowSource(store, store.n_tokens - 1, 0)
    assert whole.samples == 1 and whole.batch(0, 2).tokens_BT.shape == (2, store.n_tokens - 1)
    with pytest.raises(DataError, match=r"val.bin holds .* tokens, fewer than one window"):
        WindowSource(store, store.n_tokens, 0)
    with pytest.raises(ConfigError, match="length must be at least 1"):
        WindowSource(store, 0, 0)
    for first, count in ((-1, 1), (0, 0)):
        with pytest.raises(IndexError):
            whole.batch(first, count)


@pytest.mark.parametrize("length", [64, 600_000])
def test_changed_bytes_are_found_by_the_first_batch_that_needs_them(tokens_folder, length):
    path = tokens_folder / "train.bin"
    raw = path.read_bytes()
    try:
        path.write_bytes(raw[: 1 << 20] + bytes([raw[1 << 20] ^ 1]) + raw[(1 << 20) + 1 :])
        source = WindowSource(open_tokens(tokens_folder).train, length, 0)
        windows = source.windows(0, source.samples)
        touched = [i for i, window in enumerate(windows) if window * length * 2 < 2 << 20]
        touched = [i for i in touched if (windows[i] * length + length + 1) * 2 > 1 << 20]
        for sample in range(min(source.samples, 50)):
            if sample not in touched:
                source.batch(sample, 1)
        with pytest.raises(CorruptionError, match=r"train.bin was changed: block 1 "):
            source.batch(touched[0], 1)
    finally:
        path.write_bytes(raw)


def test_a_batch_counts_its_targets_and_moves():
    targets = torch.tensor([[1, IGNORE, 3]])
    batch = TokenBatch(targets, targets, torch.zeros(1, 3, dtype=torch.int32), None).to("cpu")
    assert batch.units == 2
    assert batch.segments_BT is not None and batch.positions_BT is None
