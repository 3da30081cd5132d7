"""How a MinHash signature is cut into bands, and what pairs of documents that finds.

Two signatures agree in a place with probability J, the Jaccard similarity of the two sets (Broder 1997). Documents that
agree in all rows of one band or more are compared: a pair is found with probability 1 − (1 − J^rows)^bands, the S-curve
of locality-sensitive hashing (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, §3.4).
"""

from __future__ import annotations

RECALL = 0.98
"""Least share found of the pairs that are just as similar as the threshold; more similar ones are found more surely."""


def found(similarity: float, bands: int, rows: int) -> float:
    """Probability that a pair of this Jaccard similarity agrees in a band."""
    return 1 - (1 - similarity**rows) ** bands


def choose_bands(threshold: float, permutations: int) -> tuple[int, int]:
    """Bands and rows of a band: the longest bands, hence the fewest pairs in vain, that reach RECALL at `threshold`."""
    for rows in range(permutations, 1, -1):
        if found(threshold, permutations // rows, rows) >= RECALL:
            return permutations // rows, rows
    return permutations, 1
