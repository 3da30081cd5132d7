"""The external sort against sorting in memory."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedbed.data.deduplication.sorting import overlapping, records_at_once, repeated
from seedbed.errors import StorageError
from tests.disks import small_disk

TINY = 64 * 128
"""Memory for 64 records."""


def by_hand(records: np.ndarray) -> list[list[int]]:
    keys = Counter(records[:, 0].tolist())
    return sorted(record for record in records.tolist() if keys[record[0]] > 1)


def parts(records: np.ndarray, chunk: int, folder, memory: int) -> list[np.ndarray]:
    chunks = (records[start : start + chunk] for start in range(0, len(records), chunk))
    return list(repeated(chunks, folder, memory))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 600),
    st.sampled_from([1, 3, 400, 1 << 40, (1 << 64) - 1]),
    st.sampled_from([1, 5, (1 << 64) - 1]),
    st.integers(1, 100),
    st.integers(0, 1000),
)
def test_repeated_keys_come_in_order_with_any_memory(tmp_path_factory, count, keys, orders, chunk, seed):
    folder = tmp_path_factory.mktemp("sorting")
    random = np.random.default_rng(seed)
    columns = [random.integers(0, top, count, np.uint64) for top in (keys, orders)]
    records = np.stack([*columns, random.permutation(count).astype(np.uint64)], axis=1)
    for memory in (TINY, 1 << 30):
        found = parts(records, chunk, folder, memory)
        assert [record for part in found for record in part.tolist()] == by_hand(records)
        assert all(0 < len(part) <= records_at_once(memory) for part in found)
        assert list(folder.iterdir()) == []


def test_the_parts_overlap_by_the_records_before(tmp_path):
    records = np.stack([np.zeros(500), np.zeros(500), np.arange(500)], axis=1).astype(np.uint64)
    found = parts(records, 500, tmp_path, TINY)
    assert len(found) > 1
    windows = {tuple(part[start : start + 9, 2]) for part in overlapping(found, 8) for start in range(len(part) - 8)}
    assert windows == {tuple(range(start, start + 9)) for start in range(492)}


def test_a_full_disk_is_told(tmp_path):
    records = np.stack([np.arange(50_000) % 1000, np.arange(50_000), np.arange(50_000)], axis=1).astype(np.uint64)
    with small_disk(tmp_path / "disk"), pytest.raises(StorageError):
        parts(records << np.uint64(50), 1000, tmp_path / "disk", TINY)
