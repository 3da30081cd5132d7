"""Characters as tokens: the alphabet of a corpus, as in the first lessons on language models.

A character outside the alphabet becomes <unk> and is lost; everything else comes back as it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import tokenizers
from tokenizers import decoders, models

from seedbed.errors import ConfigError, DataError
from seedbed.tokenizers.chat import find_template
from seedbed.tokenizers.tokenizer import SPECIALS, Tokenizer


def train(texts: Iterable[str], vocab_size: int | None = None) -> Tokenizer:
    """The special tokens, then every character of the texts in the order of Unicode; with `vocab_size`, only the most
    frequent ones that fit.

    Raises DataError when the texts hold no character, ConfigError when `vocab_size` leaves room for none.
    """
    if vocab_size is not None and vocab_size <= len(SPECIALS):
        raise ConfigError(f"vocab_size must be > {len(SPECIALS)}, the number of special tokens, got {vocab_size}")
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    surrogates = [character for character in counts if "\ud800" <= character <= "\udfff"]
    if surrogates:
        raise DataError(f"the text has the lone surrogate U+{ord(surrogates[0]):04X}, which UTF-8 cannot hold")
    if not counts:
        raise DataError("the texts hold no character to learn an alphabet from")
    by_frequency = sorted(counts, key=lambda character: (-counts[character], character))
    kept = by_frequency if vocab_size is None else by_frequency[: vocab_size - len(SPECIALS)]
    vocabulary = {token: id for id, token in enumerate([*SPECIALS, *sorted(kept)])}
    # A BPE without merges and without a split looks up one character after the other.
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", fuse_unk=False))
    backend.decoder = decoders.Fuse()
    return Tokenizer.build(backend, find_template("chatml"))
