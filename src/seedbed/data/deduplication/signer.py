"""Signing the documents of a unit: the work that a worker does with texts in hand."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seedbed.data.config import DeduplicationConfig
from seedbed.data.deduplication.bands import choose_bands
from seedbed.data.deduplication.signatures import Signatures
from seedbed.data.deduplication.spans import find_spans
from seedbed.data.shingles import ngram_hashes, word_hashes, words
from seedbed.data.splitmix import mix
from seedbed.extras import missing

MINHASH_SEED = 1
NO_SPANS = np.empty(0, np.uint64), np.empty((0, 2), np.uint32)
NO_SHINGLES = np.empty(0, np.uint32)


def settings(config: DeduplicationConfig) -> str:
    """The options that signatures depend on, as text."""
    near = f"near {config.near}, {config.permutations} permutations, {config.shingle} words" if config.near else "exact"
    return near + ", lines" * config.lines + ", paragraphs" * config.paragraphs


class Signer:
    """Makes signatures. One for a worker; the result depends on the texts and the config alone."""

    def __init__(self, config: DeduplicationConfig):
        self.config = config
        self.bands, self.rows = choose_bands(config.near, config.permutations) if config.near else (0, 0)
        if config.near:
            # rensa would start a thread a core in every worker; a worker is one core.
            os.environ.setdefault("RAYON_NUM_THREADS", "1")
            try:
                from rensa import RMinHash
            except ImportError as error:
                raise missing("deduplicate.near", "rensa", "data") from error
            self._minhash = RMinHash.digest_matrix_from_flat_token_hashes

    def sign(self, texts: Sequence[str]) -> Signatures:
        """Signatures of a unit's documents, in their order."""
        ties, digests = bytearray(), bytearray()
        shingles, span_hashes, spans = [], [], []
        for text in texts:
            tokens, hashes_of_spans, characters = self._tokens(text)
            ties += hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8]
            digests += hashlib.blake2b(_normalised(text, tokens), digest_size=16).digest()
            shingles.append(self._shingles(tokens))
            span_hashes.append(hashes_of_spans)
            spans.append(characters)
        starts = _starts(shingles)
        together = np.concatenate([NO_SHINGLES, *shingles])
        return Signatures(
            settings=settings(self.config),
            ties=np.frombuffer(bytes(ties), ">u8").astype(np.uint64),
            lengths=np.array([len(text) for text in texts], np.uint32),
            digests=np.frombuffer(bytes(digests), "<u8").reshape(-1, 2),
            bands=self._bands(together, starts),
            shingle_starts=starts,
            shingles=together,
            span_starts=_starts(span_hashes),
            span_hashes=np.concatenate([NO_SPANS[0], *span_hashes]),
            spans=np.concatenate([NO_SPANS[1], *spans]),
        )

    def _tokens(self, text: str) -> tuple[list[str], NDArray[np.uint64], NDArray[np.uint32]]:
        if self.config.lines or self.config.paragraphs:
            return find_spans(text, self.config.lines, self.config.paragraphs)
        return words(text), *NO_SPANS

    def _shingles(self, tokens: list[str]) -> NDArray[np.uint32]:
        """Sorted hashes of the runs of `config.shingle` words; a shorter text is one shingle, one without words none.

        32 bits: of two sets of n shingles about n² / 2³² look equal by chance, 0.02 % of a million.
        """
        if not self.config.near or not tokens:
            return NO_SHINGLES
        hashes = ngram_hashes(word_hashes(tokens), min(self.config.shingle, len(tokens)))
        ordered = np.sort((hashes >> np.uint64(32)).astype(np.uint32))
        return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])]

    def _bands(self, shingles: NDArray[np.uint32], starts: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """[bands, documents]: the rows of each band of the MinHash signatures, hashed to one key."""
        documents = len(starts) - 1
        if not self.bands or not documents:
            return np.zeros((self.bands, documents), np.uint64)
        matrix = self._minhash(shingles.astype(np.uint64), starts, self.config.permutations, MINHASH_SEED)
        signatures = np.array(matrix.to_rows(), np.uint64)[:, : self.bands * self.rows]
        rows = signatures.reshape(documents, self.bands, self.rows).transpose(2, 1, 0)
        keys = np.repeat(np.arange(self.bands, dtype=np.uint64)[:, None], documents, axis=1)
        for row in rows:
            keys = mix(keys + row)
        return keys


def _normalised(text: str, tokens: list[str]) -> bytes:
    """The words; a text without any is told apart by its signs. The byte in front keeps the two kinds apart."""
    if tokens:
        return b"w" + " ".join(tokens).encode()
    return b"s" + " ".join(unicodedata.normalize("NFKC", text).split()).encode("utf-8", "surrogatepass")


def _starts(parts: Sequence[NDArray[np.generic]]) -> NDArray[np.uint64]:
    return np.cumsum([0, *map(len, parts)], dtype=np.uint64)
