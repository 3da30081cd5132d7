"""The order of data is a permutation that anyone can compute from a key and an index."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedbed.data.batches.order import Permutation

FIXED = [0, 2, 6, 7, 9, 3, 8, 1, 5, 4]
FIXED_LARGE = 144281935306
keys = st.one_of(st.integers(), st.text(st.characters(exclude_categories=["Cs"])))


@given(st.integers(1, 3000), keys)
def test_it_is_a_bijection(n, key):
    assert np.array_equal(np.sort(Permutation(n, key)(np.arange(n))), np.arange(n))


@given(st.integers(2, 2**62 - 1), keys, st.lists(st.integers(0, 2**62), min_size=1, max_size=50))
def test_an_array_gives_what_its_elements_give_also_for_huge_ranges(n, key, indices):
    indices = np.array([index % n for index in indices], dtype=np.int64)
    permutation = Permutation(n, key)
    places = permutation(indices)
    assert places.tolist() == [permutation(int(index)) for index in indices]
    assert places.min() >= 0 and places.max() < n
    assert len(set(places.tolist())) == len(set(indices.tolist()))


def test_the_order_is_fixed_for_ever():
    """A resumed run needs the order it began with: a change here breaks every run that exists."""
    assert Permutation(10, "seed")(np.arange(10)).tolist() == FIXED
    assert Permutation(10**12, 7)(123_456_789) == FIXED_LARGE


def test_keys_give_unrelated_orders():
    n = 20_000
    orders = [Permutation(n, key)(np.arange(n)) for key in ("0:0", "0:1", "1:0", 0, 1, "0", "1")]
    for i, one in enumerate(orders):
        assert abs(np.corrcoef(one, np.arange(n))[0, 1]) < 0.03
        for other in orders[:i]:
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.03
            assert (one == other).mean() < 0.001


def test_neighbours_land_anywhere():
    """The distance between the places of neighbours is spread as for a random order: (1 − d)² of pairs are d apart."""
    n = 50_000
    places = Permutation(n, "k")(np.arange(n))
    distances = np.abs(np.diff(places)) / n
    for d in (0.1, 0.3, 0.5, 0.7):
        assert (distances > d).mean() == pytest.approx((1 - d) ** 2, abs=0.01)


def test_small_orders_are_all_reached():
    seen = {tuple(Permutation(3, key)(np.arange(3)).tolist()) for key in range(200)}
    assert len(seen) == 6


@pytest.mark.parametrize("index", [-1, 10, np.array([3, 10]), np.array([-1])])
def test_an_index_outside_is_refused(index):
    with pytest.raises(IndexError, match=r"must be in \[0, 10\)"):
        Permutation(10, "k")(index)


def test_what_is_no_index_or_no_range_is_refused():
    with pytest.raises(TypeError, match="whole numbers"):
        Permutation(10, "k")(np.array([0.5]))
    for n in (0, -1, 2**62):
        with pytest.raises(ValueError, match="0 < n"):
            Permutation(n, "k")
    assert Permutation(10, "k")(np.array([], dtype=np.int64)).tolist() == []
