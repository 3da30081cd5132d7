"""One tokenizer for every kind: Hugging Face's `tokenizer.json` is the truth, and this class is how seedbed reads it.

The folder it saves loads in transformers' `AutoTokenizer` (and so in vLLM and lm-eval) as it stands, with the same
ids. Two things differ from there on purpose. The text of a special token inside a text stays text: only `chat` and the
flags `bos` and `eos` place special tokens, so no document and no user can end a turn by writing `<|im_end|>`. And where
a faster way gives the same ids it is taken: numpy looks up bytes and characters, tiktoken merges byte pairs (`bulk`).
"""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import AddedToken, processors

from seedbed.errors import ConfigError, CorruptionError, DataError
from seedbed.runs import parse_json, write_atomic, write_json
from seedbed.tokenizers.folder import MAKER, NAMES, read_folder
from seedbed.tokenizers.scheme import may_cut, read_scheme, token_bytes, without_prefix

if TYPE_CHECKING:
    from seedbed.tokenizers.bulk import BulkEncoder

SPECIALS = ("<pad>", "<unk>", "<s>", "</s>", "<mask>", "<|im_start|>", "<|im_end|>")
"""The special tokens of every tokenizer grown here, in the order of their ids."""

END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>")
"""Special tokens that end an answer in some chat format; each that a tokenizer has ends generation, as </s> does."""

SPARE_IDS = 1024
"""Ids may be left out of a vocabulary, up to so many besides as many as it has."""

PIECE_CHARACTERS = 1 << 16
"""Longer texts are encoded in pieces: Hugging Face's encoding of a text takes some hundred times its memory."""

PIECES_AT_ONCE = 64

NO_IDS: NDArray[np.uint32] = np.zeros(0, dtype=np.uint32)

BULK_CHARACTERS = 1 << 18
"""From so much text on it pays to make what encodes fast."""


class Tokenizer:
    """Text to token ids and back.

    `kind` is "bytes", "characters", "byte_pair" or "sentence_piece"; `vocab_size` is one more than the largest id.
    `pad_id`, `unk_id`, `bos_id` and `eos_id` are None where the tokenizer has no such token. `end_ids` are the ids that
    end generation, the end of a document first. `pieces` are the bytes that each id stands for in a text, none for
    special tokens. `chat_template` is Jinja source, or None.
    """

    def __init__(self, source: str, config: dict[str, Any], chat_template: str | None):
        """`source` is the text of tokenizer.json, `config` what tokenizer_config.json says besides the template.

        Raises DataError when it is no tokenizer that seedbed knows, ValueError when it is no tokenizer at all.
        """
        self._source = source
        self._config = config
        self.chat_template = chat_template
        described = parse_json(source.encode())
        self._backend = _parse(source)
        self._backend.encode_special_tokens = True  # special tokens' text is encoded as any text
        self._backend.no_padding()
        self._backend.no_truncation()
        try:
            self._backend.encode("a")
        except Exception as error:  # whatever the library raises, and it raises this class itself
            raise ValueError(f"it cannot encode a text: {error}") from error
        self._scheme = read_scheme(described)
        self.kind = self._scheme.kind
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        self.vocab_size = _vocab_size(vocabulary)
        added = sorted(self._backend.get_added_tokens_decoder().items())
        self.special_ids: dict[str, int] = {token.content: id for id, token in added if token.special}
        self._added = [token.content for _, token in added if not token.special]  # found in any text
        self.pad_id, self.unk_id, self.bos_id, self.eos_id = (
            _token_id(config, f"{name}_token", vocabulary) for name in ("pad", "unk", "bos", "eos")
        )
        turns = [self.special_ids.get(token) for token in END_OF_TURN]
        self.end_ids: tuple[int, ...] = tuple(dict.fromkeys(id for id in [self.eos_id, *turns] if id is not None))
        self._texts = token_bytes(self._scheme, vocabulary, {id for id, _ in added}, self.vocab_size)
        special = set(self.special_ids.values())
        self.pieces = [b"" if id in special else text for id, text in enumerate(self._texts)]
        self._lookup = _lookup(self.kind, self.pieces, self.unk_id)
        self._cuts = may_cut(self._scheme, self.pieces, self._added)

    @classmethod
    def build(cls, backend: tokenizers.Tokenizer, chat_template: str | None) -> Tokenizer:
        """Wraps a freshly made vocabulary: adds the post-processor and the configuration Hugging Face wants.

        A vocabulary with special tokens must hold all of SPECIALS.
        """
        vocabulary = backend.get_vocab(with_added_tokens=True)
        config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
        if "<s>" in vocabulary:
            backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
            backend.post_processor = processors.TemplateProcessing(
                single="<s> $A", pair="<s> $A <s> $B:1", special_tokens=[("<s>", vocabulary["<s>"])]
            )
            config |= NAMES | {"additional_special_tokens": [t for t in SPECIALS if t not in NAMES.values()]}
        # No token_type_ids: the generate() of most models refuses them.
        config |= {"clean_up_tokenization_spaces": False, "model_input_names": ["input_ids", "attention_mask"]}
        return cls(backend.to_str(pretty=True), config, chat_template)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of tokenizer.json and the chat template: equal hashes give equal ids for every text and chat."""
        template = "" if self.chat_template is None else "\0" + self.chat_template
        return hashlib.sha256((self._source + template).encode("utf-8")).hexdigest()

    def with_template(self, template: str) -> Tokenizer:
        """The same tokenizer with another chat template, given as Jinja source."""
        return Tokenizer(self._source, self._config, template)

    def with_tokens(self, tokens: Sequence[str]) -> Tokenizer:
        """The same tokenizer with more special tokens, whose ids follow all others. ConfigError for one it has."""
        backend = _parse(self._source)
        for token in tokens:
            if not token or backend.token_to_id(token) is not None:
                raise ConfigError(f"{token!r} cannot be added: it is empty, or this tokenizer has it already")
        backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
        specials = [*self._config.get("additional_special_tokens", []), *tokens]
        config = self._config | {"additional_special_tokens": specials}
        return Tokenizer(backend.to_str(pretty=True), config, self.chat_template)

    # Text to ids -----------------------------------------------------------------------------------------------------

    def extends(self, other: Tokenizer) -> bool:
        """Whether every id of `other` stands for the same token here."""
        same_specials = other.special_ids.items() <= self.special_ids.items()
        return same_specials and list(self._texts[: other.vocab_size]) == list(other._texts)

    def encode(self, text: str, *, bos: bool = False, eos: bool = False, continues: bool = False) -> list[int]:
        """The ids of a text, after <s> and before </s> where asked for. `continues`: it goes on with another, so no
        space is put before it.

        Raises DataError for a text that UTF-8 cannot hold (lone surrogates), ConfigError when <s> or </s> is asked of a
        tokenizer that has none.
        """
        if bos and self.bos_id is None:
            raise ConfigError("this tokenizer has no token for the beginning of a text")
        if eos and self.eos_id is None:
            raise ConfigError("this tokenizer has no token for the end of a text")
        ids: list[int] = self.encode_batch([text], continues=continues)[0].tolist()
        first = [self.bos_id] if bos and self.bos_id is not None else []
        last = [self.eos_id] if eos and self.eos_id is not None else []
        return first + ids + last

    def encode_batch(self, texts: Sequence[str], *, continues: bool = False) -> list[NDArray[np.uint32]]:
        """The ids of many texts, without <s> and </s>: the way for bulk work. `continues`: they go on with others."""
        if self._lookup is not None:
            return [self._lookup(text) for text in texts]
        for text in texts:
            _utf8(text, "utf-8")
        bulk = self._bulk if sum(map(len, texts)) >= BULK_CHARACTERS else None
        encoded: list[list[NDArray[np.uint32]]] = [[] for _ in texts]
        waiting: list[tuple[int, int, str]] = []  # text, place in it, piece
        for i, text in enumerate(texts):
            for place, piece in enumerate(_cut(text) if self._cuts else [text]):
                ids = None if bulk is None else bulk.encode(piece)
                encoded[i].append(NO_IDS if ids is None else ids)
                if ids is None:
                    waiting.append((i, place, piece))
                if len(waiting) >= PIECES_AT_ONCE:
                    self._fill(encoded, waiting, continues)
        self._fill(encoded, waiting, continues)
        return [np.concatenate(parts) if parts else NO_IDS for parts in encoded]

    def _fill(
        self, encoded: list[list[NDArray[np.uint32]]], waiting: list[tuple[int, int, str]], continues: bool
    ) -> None:
        """Encodes the pieces that wait, on all cores, and puts their ids where they belong."""
        for begins in (True, False):
            batch = [piece for piece in waiting if (piece[1] == 0 and not continues) == begins]
            if not batch:
                continue
            backend = self._backend if begins else self._following
            encodings = backend.encode_batch_fast([text for *_, text in batch], add_special_tokens=False)
            for (i, place, _), encoding in zip(batch, encodings, strict=True):
                encoded[i][place] = np.asarray(encoding.ids, dtype=np.uint32)
        waiting.clear()

    @cached_property
    def _following(self) -> tokenizers.Tokenizer:
        """What encodes the pieces of a text after the first."""
        if not self._scheme.prepends:
            return self._backend
        backend = _parse(without_prefix(self._source))
        backend.encode_special_tokens = True
        backend.no_padding()
        backend.no_truncation()
        return backend

    @cached_property
    def _bulk(self) -> BulkEncoder | None:
        from seedbed.tokenizers.bulk import build  # tiktoken comes when there is much to encode

        return build(self._source, self._scheme, self._added)

    # Ids to text -----------------------------------------------------------------------------------------------------

    def decode(self, ids: Iterable[int], *, skip_special: bool = True, continues: bool = False) -> str:
        """The text of the ids. Bytes that are not UTF-8 become U+FFFD, as in Hugging Face's decoder; ids outside the
        vocabulary are a DataError.

        Tokenizers that put a space before each text (Llama 2's) have it taken away again, unless the ids are said to
        continue a text.
        """
        raw = b"".join(self._bytes_of(ids, skip_special))
        if self._scheme.prepends and not continues:
            raw = raw.removeprefix(b" ")
        return raw.decode("utf-8", errors="replace")

    def stream(self, *, skip_special: bool = True, continues: bool = False) -> TokenStream:
        """A decoder for ids that come one by one, as in generation; what it gives is what `decode` gives."""
        return TokenStream(self, skip_special, drop_space=self._scheme.prepends and not continues)

    def _bytes_of(self, ids: Iterable[int], skip_special: bool) -> Iterator[bytes]:
        pieces = self.pieces if skip_special else self._texts
        for id in ids:
            if not 0 <= id < len(pieces):
                raise DataError(f"token {id} is outside this tokenizer's vocabulary of {self.vocab_size:,}")
            yield pieces[id]

    def token_bytes(self) -> NDArray[np.int32]:
        """How many bytes of UTF-8 each id stands for (0 for special tokens), for bits per byte. Shape [vocab_size]."""
        return np.array([len(piece) for piece in self.pieces], dtype=np.int32)

    def token_text(self, id: int) -> str:
        """What one id stands for, special tokens by their name; for tables and error messages."""
        return self.decode([id], skip_special=False, continues=True)

    def named_specials(self) -> dict[str, str]:
        """The special tokens by the names chat templates call them: {"bos_token": "<s>", …}."""
        return {
            name: value["content"] if isinstance(value, dict) else value
            for name, value in self._config.items()
            if name in NAMES and value is not None
        }

    # Folders ---------------------------------------------------------------------------------------------------------

    def save(self, folder: Path | str, context: int | None = None) -> None:
        """Writes tokenizer.json and tokenizer_config.json, which AutoTokenizer loads as they are. `context`: of the
        model that the folder holds."""
        config = dict(self._config)
        if context is not None:
            config["model_max_length"] = context
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        write_atomic(Path(folder) / "tokenizer.json", self._source)
        write_json(Path(folder) / "tokenizer_config.json", config)

    @classmethod
    def load(cls, folder: Path | str) -> Tokenizer:
        """Reads the tokenizer of a tokenizer or model folder, or of a Hugging Face folder with a tokenizer.json.

        DataError when it is not there or of a kind seedbed does not know, CorruptionError when it cannot be parsed.
        """
        path = Path(folder)
        source, config, template = read_folder(path)
        if not config:  # a tokenizer without its special tokens is another one
            raise DataError(f"{path} holds no tokenizer_config.json", MAKER)
        try:
            return cls(source, config, template)
        except DataError as error:
            raise DataError(f"{path / 'tokenizer.json'}: {error.problem}", error.fix) from error
        except ValueError as error:
            raise CorruptionError(f"{path / 'tokenizer.json'} cannot be used: {error}") from error


class TokenStream:
    """Decodes ids one by one and gives text only when it is whole: a character whose bytes are still coming waits.

    All pushes and the flush together give exactly what `Tokenizer.decode` gives for the same ids.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special: bool, *, drop_space: bool = False):
        self._bytes_of = tokenizer._bytes_of
        self._skip_special = skip_special
        self._drop_space = drop_space
        """Whether the text is still to begin, with a space that does not belong to it."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, id: int) -> str:
        """The text that is certain after one more id; often empty."""
        raw = b"".join(self._bytes_of([id], self._skip_special))
        if raw and self._drop_space:
            raw, self._drop_space = raw.removeprefix(b" "), False
        return self._decoder.decode(raw)

    def fork(self) -> TokenStream:
        """Another one that stands where this one stands."""
        other = copy(self)
        other._decoder = copy(self._decoder)
        return other

    def flush(self) -> str:
        """What is left at the end: an unfinished character as U+FFFD. The stream starts anew after it."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


# Reading tokenizer.json ----------------------------------------------------------------------------------------------


def _parse(source: str) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(source)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises nothing narrower, and its panics are no Exceptions
        raise ValueError(str(error)) from error


def _vocab_size(vocabulary: dict[str, int]) -> int:
    """One more than the largest id. Tables are made of that size, so it must not be far beyond the entries."""
    if not vocabulary:
        raise DataError("its vocabulary is empty")
    token, largest = max(vocabulary.items(), key=lambda entry: entry[1])
    if largest >= 2 * len(vocabulary) + SPARE_IDS:
        raise DataError(f"its vocabulary has {len(vocabulary):,} entries, but {token[:40]!r} has the id {largest:,}")
    return largest + 1


def _token_id(config: dict[str, Any], name: str, vocabulary: dict[str, int]) -> int | None:
    token = config.get(name)
    token = token["content"] if isinstance(token, dict) else token
    if token is None:
        return None
    if token not in vocabulary:
        raise ValueError(f"tokenizer_config.json names the {name} {token!r}, which the vocabulary does not hold")
    return vocabulary[token]


# Fast ways to the same ids -------------------------------------------------------------------------------------------


def _lookup(kind: str, pieces: list[bytes], unk_id: int | None) -> Any:
    """A function text -> ids for the kinds that are a table; None for the others."""
    if kind == "bytes":
        table = np.zeros(256, dtype=np.uint32)
        id_of = {piece: id for id, piece in enumerate(pieces)}
        if any(bytes([byte]) not in id_of for byte in range(256)):
            raise ValueError("its vocabulary does not hold all 256 bytes")
        table[:] = [id_of[bytes([byte])] for byte in range(256)]
        return lambda text: table[np.frombuffer(_utf8(text, "utf-8"), dtype=np.uint8)]
    if kind == "characters":
        if unk_id is None:
            raise ValueError("a tokenizer of characters needs an <unk> token")
        points = {ord(piece.decode("utf-8")): id for id, piece in enumerate(pieces) if len(piece.decode("utf-8")) == 1}
        table = np.full(max(points, default=0) + 2, unk_id, dtype=np.uint32)
        table[list(points)] = list(points.values())
        last = len(table) - 1  # stands for every character beyond the alphabet
        return lambda text: table[np.minimum(np.frombuffer(_utf8(text, "utf-32-le"), dtype="<u4"), last)]
    return None


def _utf8(text: str, encoding: str) -> bytes:
    try:
        return text.encode(encoding)
    except UnicodeEncodeError as error:
        problem = f"the text has the lone surrogate U+{ord(text[error.start]):04X} at character {error.start:,}"
        raise DataError(f"{problem}, which UTF-8 cannot hold") from error


def _cut(text: str) -> Iterator[str]:
    """Pieces whose ids are the ids of the whole text: a word begins at the space after an ASCII letter, so it is cut
    only there (`scheme.may_cut` says for which tokenizers). A text without such a place stays whole."""
    start = 0
    while len(text) - start > PIECE_CHARACTERS:
        end = text.find(" ", start + PIECE_CHARACTERS)
        while end > 0 and not (text[end - 1].isascii() and text[end - 1].isalpha()):
            end = text.find(" ", end + 1)
        if end < 0:
            break
        yield text[start:end]
        start = end
    yield text[start:]
