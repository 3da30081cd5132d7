"""The tokens of a tokenizer as llguidance asks for them: the bytes of each, and how a text is spelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from seedbed.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLTokenizer

NEVER = b"\xff"
"""In no UTF-8, and to llguidance the mark of a special token."""


class Spelling:
    """Special tokens have no bytes, so no grammar can name them. A byte that no token stands for has one behind the
    vocabulary: what has to be spelled with it cannot be said."""

    bos_token_id = None
    special_token_ids: Sequence[int] = ()

    def __init__(self, tokenizer: Tokenizer, vocabulary: int):
        self.tokenizer, self.vocabulary = tokenizer, vocabulary
        silent = {tokenizer.pad_id, tokenizer.unk_id, tokenizer.bos_id, *tokenizer.end_ids}
        self.tokens = [
            b"" if id in silent or NEVER in piece else piece for id, piece in enumerate(tokenizer.pieces[:vocabulary])
        ]
        self.byte_ids = {piece[0]: id for id, piece in enumerate(self.tokens) if len(piece) == 1}
        for byte in range(255):
            if byte not in self.byte_ids:
                self.byte_ids[byte] = len(self.tokens)
                self.tokens.append(bytes([byte]))
        self.end_ids = [id for id in tokenizer.end_ids if id < vocabulary]
        if not self.end_ids:  # it wants one
            self.end_ids = [len(self.tokens)]
            self.tokens.append(b"")
        self.eos_token_id = self.end_ids[0]

    def __call__(self, raw: bytes) -> list[int]:
        """The ids of a text that goes on with another: as the tokenizer spells it, where that is just this text."""
        text = raw.decode("utf-8")
        return self._faithful(text) or [id for character in text for id in self._spelled(character)]

    def _faithful(self, text: str) -> list[int]:
        ids = self.tokenizer.encode(text, continues=True)
        same = max(ids, default=0) < self.vocabulary and b"".join(self.tokens[id] for id in ids) == text.encode("utf-8")
        return ids if same else []

    def _spelled(self, character: str) -> list[int]:
        return self._faithful(character) or [self.byte_ids[byte] for byte in character.encode("utf-8")]


def spelling_of(tokenizer: Tokenizer, vocabulary: int) -> LLTokenizer:
    """Of a tokenizer, of which only ids below `vocabulary` are chosen."""
    from llguidance import LLTokenizer, TokenizerWrapper

    spelling = Spelling(tokenizer, vocabulary)
    return LLTokenizer(TokenizerWrapper(spelling), eos_token=spelling.end_ids)
