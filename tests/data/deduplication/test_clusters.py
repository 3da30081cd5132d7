"""Union-find against sets that are merged by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from seedbed.data.deduplication.clusters import Clusters

COUNT = 30
pairs = st.lists(st.tuples(st.integers(0, COUNT - 1), st.integers(0, COUNT - 1)), max_size=40)


def merged_by_hand(edges: list[tuple[int, int]]) -> list[int]:
    clusters = [{number} for number in range(COUNT)]
    for left, right in edges:
        joined = clusters[left] | clusters[right]
        for member in joined:
            clusters[member] = joined
    return [min(cluster) for cluster in clusters]


@given(st.lists(pairs, max_size=4), st.randoms(use_true_random=False))
def test_roots_are_the_smallest_members_whatever_the_order_of_pairs(tmp_path_factory, batches, chance):
    clusters = Clusters(tmp_path_factory.mktemp("clusters") / "parents", COUNT)
    for batch in batches:
        chance.shuffle(batch)
        left, right = np.array(batch, np.int64).reshape(-1, 2).T
        clusters.union(left, right)
    assert clusters.roots(np.arange(COUNT)).tolist() == merged_by_hand([edge for batch in batches for edge in batch])


def test_a_chain_of_a_million_is_one_cluster(tmp_path):
    clusters = Clusters(tmp_path / "parents", 1_000_000)
    order = np.random.default_rng(0).permutation(999_999)
    clusters.union(order + 1, order)
    assert not clusters.roots(np.arange(1_000_000)).any()
