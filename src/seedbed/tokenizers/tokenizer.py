"""One tokenizer for every kind: Hugging Face's `tokenizer.json` is the truth, and this class is how seedbed reads it.

The folder it saves loads in transformers' `AutoTokenizer` (and so in vLLM and lm-eval) as it stands, with the same
ids. Two things differ from there on purpose. The text of a special token inside a text stays text: only `chat` and the
flags `bos` and `eos` place special tokens, so no document and no user can end a turn by writing `<|im_end|>`. And where
a kind is simple enough (bytes, characters) the ids are looked up with numpy, many times faster than by `tokenizers`.
"""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import AddedToken, processors

from seedbed.errors import ConfigError, CorruptionError, DataError
from seedbed.runs import parse_json, write_atomic, write_json

SPECIALS = ("<pad>", "<unk>", "<s>", "</s>", "<mask>", "<|im_start|>", "<|im_end|>")
"""The special tokens of every tokenizer grown here, in the order of their ids."""

NAMES = {
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "mask_token": "<mask>",
}
"""What Hugging Face calls them in tokenizer_config.json. Padding is never the end token: the end is learned."""

END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>")
"""Special tokens that end an answer in some chat format; each that a tokenizer has ends generation, as </s> does."""

SPARE_IDS = 1024
"""Ids may be left out of a vocabulary, up to so many besides as many as it has."""

PIECE_CHARACTERS = 1 << 16
"""Longer texts are encoded in pieces: Hugging Face's encoding of a text takes some hundred times its memory."""

PIECES_AT_ONCE = 64


class Tokenizer:
    """Text to token ids and back.

    `kind` is "bytes", "characters" or "byte_pair"; `vocab_size` is one more than the largest id. `pad_id`, `unk_id`,
    `bos_id` and `eos_id` are None where the tokenizer has no such token. `end_ids` are the ids that end generation, the
    end of a document first. `chat_template` is Jinja source, or None.
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
        self.kind = _kind(described)
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        self.vocab_size = _vocab_size(vocabulary)
        self.special_ids: dict[str, int] = {
            token.content: id for id, token in sorted(self._backend.get_added_tokens_decoder().items()) if token.special
        }
        self.pad_id, self.unk_id, self.bos_id, self.eos_id = (
            _token_id(config, f"{name}_token", vocabulary) for name in ("pad", "unk", "bos", "eos")
        )
        turns = [self.special_ids.get(token) for token in END_OF_TURN]
        self.end_ids: tuple[int, ...] = tuple(dict.fromkeys(id for id in [self.eos_id, *turns] if id is not None))
        self._pieces, self._texts = _token_texts(self._backend, self.kind, self.vocab_size, self.special_ids)
        self._lookup = _lookup(self.kind, self._pieces, self.unk_id)

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

    # Text to ids -----------------------------------------------------------------------------------------------------

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """The ids of a text, after <s> and before </s> where asked for.

        Raises DataError for a text that UTF-8 cannot hold (lone surrogates), ConfigError when <s> or </s> is asked of a
        tokenizer that has none.
        """
        if bos and self.bos_id is None:
            raise ConfigError("this tokenizer has no token for the beginning of a text")
        if eos and self.eos_id is None:
            raise ConfigError("this tokenizer has no token for the end of a text")
        ids: list[int] = self.encode_batch([text])[0].tolist()
        first = [self.bos_id] if bos and self.bos_id is not None else []
        last = [self.eos_id] if eos and self.eos_id is not None else []
        return first + ids + last

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """The ids of many texts, without <s> and </s>: the way for bulk work, on all cores where the kind allows."""
        if self._lookup is not None:
            return [self._lookup(text) for text in texts]
        encoded: list[list[NDArray[np.uint32]]] = [[] for _ in texts]
        pieces = ((i, piece) for i, text in enumerate(texts) for piece in _cut(text))
        while batch := [piece for piece, _ in zip(pieces, range(PIECES_AT_ONCE), strict=False)]:
            try:
                encodings = self._backend.encode_batch_fast([text for _, text in batch], add_special_tokens=False)
            except TypeError as error:  # how `tokenizers` answers a str that is not UTF-8
                for _, text in batch:
                    _utf8(text, "utf-8")
                raise error
            for (i, _), encoding in zip(batch, encodings, strict=True):
                encoded[i].append(np.asarray(encoding.ids, dtype=np.uint32))
        return [np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint32) for parts in encoded]

    # Ids to text -----------------------------------------------------------------------------------------------------

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of the ids. Bytes that are not UTF-8 become U+FFFD, as in Hugging Face's decoder; ids outside the
        vocabulary are a DataError."""
        return b"".join(self._bytes_of(ids, skip_special)).decode("utf-8", errors="replace")

    def stream(self, *, skip_special: bool = True) -> TokenStream:
        """A decoder for ids that come one by one, as in generation."""
        return TokenStream(self, skip_special)

    def _bytes_of(self, ids: Iterable[int], skip_special: bool) -> Iterator[bytes]:
        pieces = self._pieces if skip_special else self._texts
        for id in ids:
            if not 0 <= id < len(pieces):
                raise DataError(f"token {id} is outside this tokenizer's vocabulary of {self.vocab_size:,}")
            yield pieces[id]

    def token_bytes(self) -> NDArray[np.int32]:
        """How many bytes of UTF-8 each id stands for (0 for special tokens), for bits per byte. Shape [vocab_size]."""
        return np.array([len(piece) for piece in self._pieces], dtype=np.int32)

    def token_text(self, id: int) -> str:
        """What one id stands for, special tokens by their name; for tables and error messages."""
        return self.decode([id], skip_special=False)

    def named_specials(self) -> dict[str, str]:
        """The special tokens by the names chat templates call them: {"bos_token": "<s>", …}."""
        return {
            name: value["content"] if isinstance(value, dict) else value
            for name, value in self._config.items()
            if name in NAMES and value is not None
        }

    # Folders ---------------------------------------------------------------------------------------------------------

    def save(self, folder: Path | str) -> None:
        """Writes tokenizer.json and tokenizer_config.json, which AutoTokenizer loads as they are."""
        config = dict(self._config)
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
        source = _read(path / "tokenizer.json")
        config_path = path / "tokenizer_config.json"
        try:
            config = parse_json(_read(config_path).encode())
            if not isinstance(config, dict):
                raise ValueError("it is not a JSON object")
            _check_special_names(config)
        except ValueError as error:
            raise CorruptionError(f"{config_path} cannot be used: {error}") from error
        template = config.pop("chat_template", None)
        # transformers saves the template in a file of its own, which then counts.
        if (path / "chat_template.jinja").is_file():
            template = _read(path / "chat_template.jinja")
        if not (template is None or isinstance(template, str)):
            raise CorruptionError(f"{config_path} cannot be used: its chat_template is not a text")
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

    def __init__(self, tokenizer: Tokenizer, skip_special: bool):
        self._bytes_of = tokenizer._bytes_of
        self._skip_special = skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, id: int) -> str:
        """The text that is certain after one more id; often empty."""
        return "".join(self._decoder.decode(piece) for piece in self._bytes_of([id], self._skip_special))

    def flush(self) -> str:
        """What is left at the end: an unfinished character as U+FFFD. The stream starts anew after it."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


# Reading tokenizer.json ----------------------------------------------------------------------------------------------


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror or error}",
            "A tokenizer folder is made by: seedbed tokenizer --corpus CORPUS --kind KIND --out TOKENIZER",
        ) from error
    except UnicodeDecodeError as error:
        raise CorruptionError(f"{path} is not UTF-8: {error}") from error


def _parse(source: str) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(source)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises nothing narrower, and its panics are no Exceptions
        raise ValueError(str(error)) from error


def _kind(described: dict[str, Any]) -> str:
    """The kind of a parsed tokenizer.json, from its model and how it splits text."""
    model, normalizer = described["model"], described.get("normalizer")
    steps = described.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", [steps] if steps else [])
    byte_level = [step for step in steps if step.get("type") == "ByteLevel"]
    if model.get("type") == "BPE" and byte_level:
        whole = normalizer is None and len(steps) == 1 and not byte_level[0].get("add_prefix_space")
        return "bytes" if whole and not model["merges"] else "byte_pair"
    if model.get("type") == "BPE" and not steps and normalizer is None and not model["merges"]:
        return "characters"
    raise DataError(
        f"its model {model.get('type')} with the pre-tokenizer {[step.get('type') for step in steps]} "
        "is none that seedbed reads (bytes, characters, byte_pair)"
    )


def _vocab_size(vocabulary: dict[str, int]) -> int:
    """One more than the largest id. Tables are made of that size, so it must not be far beyond the entries."""
    if not vocabulary:
        raise DataError("its vocabulary is empty")
    token, largest = max(vocabulary.items(), key=lambda entry: entry[1])
    if largest >= 2 * len(vocabulary) + SPARE_IDS:
        raise DataError(f"its vocabulary has {len(vocabulary):,} entries, but {token[:40]!r} has the id {largest:,}")
    return largest + 1


def _check_special_names(config: dict[str, Any]) -> None:
    """ValueError unless each special token of tokenizer_config.json is a text, or an object that holds one."""
    for name in NAMES:
        token = config.get(name)
        token = token.get("content", 0) if isinstance(token, dict) else token
        if not (token is None or isinstance(token, str)):
            raise ValueError(f"its {name} is not a text")


def _token_id(config: dict[str, Any], name: str, vocabulary: dict[str, int]) -> int | None:
    token = config.get(name)
    token = token["content"] if isinstance(token, dict) else token
    if token is None:
        return None
    if token not in vocabulary:
        raise ValueError(f"tokenizer_config.json names the {name} {token!r}, which the vocabulary does not hold")
    return vocabulary[token]


def byte_characters() -> dict[int, str]:
    """The printable character that stands for each byte in a byte-level vocabulary (GPT-2's `bytes_to_unicode`)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def _token_texts(
    backend: tokenizers.Tokenizer, kind: str, size: int, special_ids: dict[str, int]
) -> tuple[list[bytes], list[bytes]]:
    """The bytes each id stands for, without and with the special tokens' names."""
    byte_of = {character: bytes([byte]) for byte, character in byte_characters().items()}
    added = backend.get_added_tokens_decoder()
    texts = [b""] * size
    for token, id in backend.get_vocab(with_added_tokens=True).items():
        if kind == "characters" or id in added:
            texts[id] = token.encode("utf-8")
        else:
            texts[id] = b"".join(byte_of[c] if c in byte_of else c.encode("utf-8") for c in token)
    special = set(special_ids.values())
    return [b"" if id in special else text for id, text in enumerate(texts)], texts


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
    """Pieces whose ids are the ids of the whole text: every split regex in use begins a new word at the space after an
    ASCII letter, so it is cut only there. A text without such a place stays whole."""
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
