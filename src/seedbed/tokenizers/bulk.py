"""Byte pairs by tiktoken, several times as fast as `tokenizers`, where the ids are proven to be the same.

tiktoken merges any two neighbours whose bytes together are a token, the smallest rank first; `tokenizers` merges the
pairs of a list, the first in the list first. They do the same on every text when

1. the vocabulary is the 256 bytes and the products of the merges,
2. the products' ids never fall along the list of merges, and
3. `tokenizers` makes of each token's bytes that one token.

For let tiktoken merge (x, y) to t within some text. No merge before crossed the borders of t, so the merges inside are
those it would do on t alone, and (x, y) is their last. Those before made shorter tokens; by induction on the length
they are the ones `tokenizers` does on t alone, which by (3) ends with t: (x, y) is in its list. So of the pairs that
stand in a text both choose the same, by (2), the leftmost first. Tokens that only a whole word can be (`ignore_merges`,
as in Llama 3) are found by both before anything merges; tiktoken must not be able to merge to one, which is checked.

What splits the text into words is one regular expression in both, run by two engines. Whether they hold the same
characters for letters, digits and white space is compared, 256 characters at a time, before a text with such
characters is given to tiktoken. A probe when the encoder is built guards the proof against its own mistakes.
"""

from __future__ import annotations

import json
import random
import re
from functools import lru_cache
from typing import Any

import numpy as np
import tiktoken
import tokenizers
from numpy.typing import NDArray
from tokenizers import Regex, pre_tokenizers

from seedbed.tokenizers.scheme import Scheme, byte_characters

LONGEST = 1 << 18
"""Characters; longer texts without a place to cut are left to `tokenizers`, for tiktoken's stack overflows on some."""

PROBE_CHARACTERS = 10_000

CLASSES = (r"\p{L}", r"\p{N}", r"\s", r"(?i:[stremvld])")
"""The sets of characters that the expressions of `splits` are made of and that Unicode may enlarge."""


class BulkEncoder:
    """Encodes a text as the tokenizer it was built from does."""

    def __init__(self, encoding: tiktoken.Encoding, normalizer: Any, added: list[str]):
        self._encoding = encoding
        self._normalizer = normalizer
        # Tokens that are no special ones and yet are found in any text, before it is split.
        self._added = re.compile("|".join(map(re.escape, added))) if added else None

    def encode(self, text: str) -> NDArray[np.uint32] | None:
        """The ids of a text that UTF-8 can hold, or None where they are not proven."""
        if len(text) > LONGEST or self._holds_added(text):
            return None
        if not text.isascii():
            if self._normalizer is not None:
                text = self._normalizer.normalize_str(text)
                if self._holds_added(text):
                    return None
            points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
            if not all(engines_agree(block) for block in np.flatnonzero(np.bincount(points >> 8)).tolist()):
                return None
        ids: NDArray[np.uint32] = self._encoding.encode_to_numpy(text, disallowed_special=())
        return ids

    def _holds_added(self, text: str) -> bool:
        return self._added is not None and self._added.search(text) is not None


def build(source: str, scheme: Scheme, added: list[str]) -> BulkEncoder | None:
    """The encoder for a tokenizer.json, or None where the proof fails. `added` are its added tokens that are not
    special. Takes about a second for 100,000 tokens."""
    described = json.loads(source)
    if scheme.kind != "byte_pair" or scheme.expression is None or not scheme.plain:
        return None
    ranks = _ranks(described["model"])
    if ranks is None:
        return None
    backend = tokenizers.Tokenizer.from_str(source)
    backend.encode_special_tokens = True
    backend.no_truncation()
    encoding = tiktoken.Encoding("seedbed", pat_str=scheme.expression, mergeable_ranks=ranks, special_tokens={})
    encoder = BulkEncoder(encoding, backend.normalizer, added)
    for text in _probe(list(ranks)):
        ids = encoder.encode(text)
        if ids is not None and ids.tolist() != backend.encode(text, add_special_tokens=False).ids:
            return None
    return encoder


def _ranks(model: dict[str, Any]) -> dict[bytes, int] | None:
    """The bytes and id of each token that text can become, when the three conditions hold."""
    whole_words = bool(model.get("ignore_merges"))
    if model.get("dropout") or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return None
    byte_of = {character: byte for byte, character in byte_characters().items()}
    vocabulary: dict[str, int] = model["vocab"]
    merged = ["".join(pair.split(" ") if isinstance(pair, str) else pair) for pair in model["merges"]]
    if any(character not in vocabulary for character in byte_of):
        return None
    order = [vocabulary[token] for token in merged]
    if order != sorted(order):
        return None
    names = dict.fromkeys([*byte_of, *merged])
    unmerged = [token for token in vocabulary if token not in names] if whole_words else []
    if any(character not in byte_of for token in unmerged for character in token):
        return None
    ranks = {bytes(byte_of[character] for character in token): vocabulary[token] for token in [*names, *unmerged]}
    merging = tokenizers.Tokenizer.from_str(
        json.dumps({"version": "1.0", "added_tokens": [], "model": {**model, "ignore_merges": False}})
    ).model
    for token in merged:
        found = merging.tokenize(token)
        if len(found) != 1 or found[0].id != vocabulary[token]:
            return None
    if any(last_pair(ranks, bytes(byte_of[character] for character in token)) for token in unmerged):
        return None
    return ranks


LONGEST_TOKEN = 1024
"""Bytes; a longer token is none that text has taught, and the search below takes time with its square."""


def last_pair(ranks: dict[bytes, int], token: bytes) -> tuple[bytes, bytes] | None:
    """The two parts that tiktoken merges last to this token; None when it never merges to it."""
    if len(token) > LONGEST_TOKEN:
        return None
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        best, at = min(
            ((ranks.get(parts[i] + parts[i + 1], 1 << 40), i) for i in range(len(parts) - 1)), default=(1 << 40, 0)
        )
        if best == 1 << 40:
            return None
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return (parts[0], parts[1]) if len(parts) == 2 else None


def _probe(tokens: list[bytes]) -> list[str]:
    """Texts that show a mistake of the proof: every token beside others, and random Unicode."""
    draw = random.Random(0)
    shuffled = draw.sample(tokens, len(tokens))
    words = b"".join([*tokens, *shuffled]).decode("utf-8", errors="ignore")
    blocks = (0x00, 0x01, 0x03, 0x04, 0x06, 0x09, 0x20, 0x30, 0x4E, 0xAC, 0x1D4, 0x1F6)  # of 256 characters
    anything = "".join(chr(draw.choice(blocks) << 8 | draw.randrange(256)) for _ in range(PROBE_CHARACTERS))
    spaced = "".join(draw.choices("ab1'sS \n\t\r.,é中", k=PROBE_CHARACTERS))
    return [*(words[i : i + LONGEST] for i in range(0, len(words), LONGEST)), anything, spaced]


@lru_cache(maxsize=0x1100)
def engines_agree(block: int) -> bool:
    """Whether both libraries put the same of the 256 characters from `block` × 256 into each of the CLASSES."""
    points = range(block << 8, (block + 1) << 8)
    text = "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)
    if any(_of_tokenizers(text, of) != _of_tiktoken(text, of) for of in CLASSES):
        return False
    # Digits on their own are found by neither engine but by Rust's char::is_numeric.
    parts = pre_tokenizers.Digits(individual_digits=True).pre_tokenize_str("".join(c + "a" for c in text))
    digits = "".join(part for part, _ in parts if len(part) == 1 and part != "a")
    return digits == _of_tiktoken(text, r"\p{N}")


def _of_tokenizers(text: str, characters: str) -> str:
    kept = pre_tokenizers.Split(Regex(characters), "removed", invert=True).pre_tokenize_str(text)
    return "".join(part for part, _ in kept)


def _of_tiktoken(text: str, characters: str) -> str:
    return _matching(characters).decode(_matching(characters).encode_ordinary(text))


@lru_cache(maxsize=len(CLASSES))
def _matching(characters: str) -> tiktoken.Encoding:
    """tiktoken drops what its expression does not match: this keeps the characters."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    return tiktoken.Encoding("seedbed", pat_str=characters, mergeable_ranks=ranks, special_tokens={})
