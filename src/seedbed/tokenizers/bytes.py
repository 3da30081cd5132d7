"""Bytes as tokens: nothing to train, nothing unknown, any text in any language; 256 ids and the special tokens.

In tokenizer.json it is a byte-level BPE without merges, which every reader of that format knows.
"""

from __future__ import annotations

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from seedbed.tokenizers.chat import find_template
from seedbed.tokenizers.scheme import byte_characters
from seedbed.tokenizers.tokenizer import SPECIALS, Tokenizer


def build(*, specials: bool = True) -> Tokenizer:
    """The tokenizer whose id of a byte is its value. The special tokens follow from 256 on; without them there are
    exactly 256 ids, no beginning, no end and no chat."""
    vocabulary = {character: byte for byte, character in byte_characters().items()}
    if specials:
        vocabulary |= {token: 256 + i for i, token in enumerate(SPECIALS)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return Tokenizer.build(backend, find_template("chatml") if specials else None)
