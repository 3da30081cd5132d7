"""The signature file: what was saved, or an error."""

from __future__ import annotations

import dataclasses
import hashlib
import random

import numpy as np
import pytest

from seedbed.data.config import DeduplicationConfig
from seedbed.data.deduplication.duplicates import find_duplicates
from seedbed.data.deduplication.signatures import Signatures
from seedbed.data.deduplication.signer import Signer
from seedbed.errors import ConfigError, CorruptionError, DataError
from tests.data.deduplication.texts import shingle_set, some_words

CONFIG = DeduplicationConfig(near=0.8, lines=True, paragraphs=True)
TEXTS = ["a line of words\nanother line of words\n\na second paragraph here", "", "one", "…!", "木" * 30]


@pytest.mark.parametrize("texts", [TEXTS, [], [""]])
@pytest.mark.parametrize("config", [CONFIG, DeduplicationConfig()])
def test_a_file_holds_the_signatures_that_were_saved(tmp_path, texts, config):
    signatures = Signer(config).sign(texts)
    signatures.save(tmp_path / "a")
    signatures.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded = Signatures.load(tmp_path / "a")
    assert len(loaded) == len(texts)
    for field in dataclasses.fields(Signatures):
        assert np.array_equal(getattr(loaded, field.name), getattr(signatures, field.name)), field.name


def test_ties_are_the_beginning_of_the_hash_of_the_text():
    hashes = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") for text in TEXTS]
    assert Signer(CONFIG).sign(TEXTS).ties.tolist() == hashes


def test_any_flipped_byte_is_found(tmp_path):
    path = tmp_path / "unit.signatures"
    Signer(CONFIG).sign(TEXTS).save(path)
    sound = path.read_bytes()
    chance = random.Random(3)
    for place in [*range(0, 1200, 7), *chance.sample(range(len(sound)), 50)]:
        damaged = bytearray(sound)
        damaged[place] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(CorruptionError, match=r"unit\.signatures is damaged"):
            Signatures.load(path)


@pytest.mark.parametrize("size", [0, 5, 100, 1000, -1])
def test_a_cut_off_file_is_found(tmp_path, size):
    path = tmp_path / "unit.signatures"
    Signer(CONFIG).sign(TEXTS).save(path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CorruptionError):
        find_duplicates([path], CONFIG, tmp_path / "scratch")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(CorruptionError, match="nowhere"):
        find_duplicates([tmp_path / "nowhere"], CONFIG, tmp_path / "scratch")


def test_signatures_of_other_options_are_refused(tmp_path):
    path = tmp_path / "unit.signatures"
    Signer(CONFIG).sign(TEXTS).save(path)
    with pytest.raises(DataError, match="128 permutations"):
        find_duplicates([path], dataclasses.replace(CONFIG, permutations=64), tmp_path / "scratch")


@pytest.mark.parametrize("n", [1, 2, 5])
def test_shingles_are_the_runs_of_words(n):
    chance = random.Random(0)
    texts = [" ".join(some_words(chance, count)) for count in (0, 1, n - 1, n, n + 1, 500)]
    signatures = Signer(DeduplicationConfig(near=0.8, shingle=n)).sign(texts)
    for number, text in enumerate(texts):
        hashes = signatures.shingles_of(number).tolist()
        assert hashes == sorted(set(hashes))
        assert len(hashes) == len(shingle_set(text, n))


def test_signatures_are_the_same_in_every_company():
    together = Signer(CONFIG).sign(TEXTS)
    alone = [Signer(CONFIG).sign([text]) for text in TEXTS]
    assert np.array_equal(together.bands, np.concatenate([one.bands for one in alone], axis=1))
    assert np.array_equal(together.digests, np.concatenate([one.digests for one in alone]))


def test_the_minhash_library_gives_the_figures_it_gave():
    keys = Signer(DeduplicationConfig(near=0.8)).sign(["one two three four five six seven"]).bands[:2, 0]
    assert keys.tolist() == [4344328602815450699, 7086098083271562908], (
        "another version of rensa? What it signed before cannot be compared with it"
    )


def test_a_missing_minhash_library_says_what_brings_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rensa", None)
    with pytest.raises(ConfigError, match=r"pip install.*\[data\]"):
        Signer(CONFIG)
    Signer(DeduplicationConfig())
