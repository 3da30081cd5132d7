"""Union-find over a memory-mapped array, whole arrays of pairs at a time.

The root of a cluster is its smallest member, whatever the order of the pairs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seedbed.data.deduplication.scratch import disk_array

STEP = 1 << 20


class Clusters:
    """The numbers below `count`, each alone at first; 8 bytes a number in the file `path`."""

    def __init__(self, path: Path, count: int):
        self._parents = disk_array(path, np.int64, count)
        for start in range(0, count, STEP):
            self._parents[start : start + STEP] = np.arange(start, min(start + STEP, count))

    def roots(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """The smallest member of the cluster of each item."""
        parents = self._parents[items]
        while True:
            above = self._parents[parents]
            self._parents[items] = above  # shortens the ways: items of one chain halve it together
            if np.array_equal(above, parents):
                return parents
            parents = self._parents[items]

    def union(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> None:
        """Joins the clusters of left[i] and right[i], for every i."""
        while True:
            left, right = self.roots(left), self.roots(right)
            apart = left != right
            if not apart.any():
                return
            left, right = left[apart], right[apart]
            # Roots only ever hang below smaller ones: no circle can arise, and the smallest stays a root.
            np.minimum.at(self._parents, np.maximum(left, right), np.minimum(left, right))
