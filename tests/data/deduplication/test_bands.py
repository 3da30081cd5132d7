"""The S-curve: what the bands promise, and that rensa's signatures keep it."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedbed.data.config import DeduplicationConfig
from seedbed.data.deduplication.bands import RECALL, choose_bands, found
from seedbed.data.deduplication.signer import Signer


@given(st.floats(0.3, 1), st.integers(16, 1024))
def test_bands_fit_the_signature_and_reach_the_recall_at_the_threshold(threshold, permutations):
    bands, rows = choose_bands(threshold, permutations)
    assert 1 <= bands * rows <= permutations
    assert found(threshold, bands, rows) >= RECALL


def test_the_default_finds_what_its_curve_says():
    assert choose_bands(0.8, 128) == (18, 7)
    assert [round(found(j, 18, 7), 3) for j in (0.5, 0.7, 0.8, 0.9, 1.0)] == [0.132, 0.787, 0.986, 1.0, 1.0]


@pytest.mark.parametrize("permutations", [64, 128])
def test_pairs_share_a_band_as_often_as_the_curve_says(permutations):
    chance = random.Random(1)
    signer = Signer(DeduplicationConfig(near=0.8, permutations=permutations, shingle=1))
    for similarity in (0.5, 0.8):
        texts = []
        for pair in range(1000):
            common = [f"w{pair}c{i}" for i in range(round(60 * similarity))]
            own = [f"w{pair}o{chance.random()}".replace(".", "") for _ in range(60 - len(common))]
            texts += [" ".join(common + own[::2]), " ".join(common + own[1::2])]
        bands = signer.sign(texts).bands
        share = np.mean((bands[:, ::2] == bands[:, 1::2]).any(axis=0))
        assert share == pytest.approx(found(similarity, signer.bands, signer.rows), abs=0.04)
