"""A tokenizer of every kind, with merges and pieces of a few sentences."""

from __future__ import annotations

import string

from seedbed.tokenizers import byte_pair, characters, sentence_piece
from seedbed.tokenizers import bytes as byte_tokenizer

TEXT = (
    'The name of "the rose", {"name": "rose", "age": 12, "tags": ["red", "green"]}, is {true} and null. '
    "Other names would smell as sweet, whatever the nameless gardener says of them; there are roses without thorns. "
) * 3

TOKENIZERS = {
    "bytes": byte_tokenizer.build(),
    "bytes alone": byte_tokenizer.build(specials=False),
    "byte_pair": byte_pair.train([TEXT], 300),
    "sentence_piece": sentence_piece.train([TEXT], 380),
    "characters": characters.train([TEXT + string.printable + "木"]),
}
