"""The token store: raw token ids in `x.bin`, and in `x.index` where documents begin and the proof that no byte changed.

`x.bin` is little-endian u16 (u32 above 65,536 tokens of vocabulary) without a header, as nanoGPT reads it. `x.index` is

    64 bytes   magic, version, bytes a token, vocabulary, documents, tokens, <s>, </s>, tokenizer hash, checksum
    u64        offsets[documents + 1], in tokens
    u32        doc_bytes[documents], UTF-8 bytes of each text, so that bits per byte cost nothing
    u64        xxh3 of each MiB of x.bin

Header, sizes and the index's checksum and SHA-256 are checked when a store is opened, each MiB of `x.bin` at its first
read, and everything against the SHA-256 of the manifest when asked to verify.
"""

from __future__ import annotations

import mmap
import shlex
import struct
import threading
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import xxhash
from numpy.typing import NDArray

from seedbed.errors import CorruptionError, DataError
from seedbed.runs import (
    MANIFEST,
    Manifest,
    open_folder,
    remake,
    verify_file,
    writing,
)

if TYPE_CHECKING:
    from seedbed.tokenizers.tokenizer import Tokenizer

MAGIC = b"SEEDTOK\1"
VERSION = 1
HEADER = struct.Struct("<8sHHIQQII16sQ")
"""magic, version, bytes a token, vocabulary, documents, tokens, <s>, </s>, tokenizer hash, xxh3 of all the rest."""
CHECKSUM_AT = HEADER.size - 8
BLOCK = 1 << 20
"""Bytes of .bin that one hash covers."""
NO_TOKEN = 0xFFFFFFFF
"""In the header: the tokenizer has no such token."""
MOST_BYTES = 0xFFFFFFFF
"""Of a document's text."""
TOKENIZER_FOLDER = "tokenizer"


# Writing --------------------------------------------------------------------------------------------------------------


class StoreWriter:
    """Writes NAME.bin and NAME.index document by document; memory grows by 12 bytes a document. Use it in `with`."""

    def __init__(self, folder: Path, name: str, tokenizer: Tokenizer):
        self.path, self.index_path, self.tokenizer = folder / f"{name}.bin", folder / f"{name}.index", tokenizer
        self.dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
        self._begin, self._end = (
            np.array([] if token is None else [token], dtype=np.uint32)
            for token in (tokenizer.bos_id, tokenizer.eos_id)
        )
        self._offsets, self._doc_bytes, self._blocks = array("Q", [0]), array("I"), array("Q")
        self._pending = bytearray()
        self._length = 0
        """Tokens of the document under way."""
        with writing(self.path):
            self._file = open(self.path, "wb")  # noqa: SIM115 (closed on leaving the block)

    @property
    def n_tokens(self) -> int:
        return self._offsets[-1]

    @property
    def n_docs(self) -> int:
        return len(self._doc_bytes)

    @property
    def n_bytes(self) -> int:
        """UTF-8 bytes of all the texts."""
        return sum(self._doc_bytes)

    def add(self, ids: NDArray[np.uint32], text_bytes: int) -> None:
        """Appends a document, <s> ids </s>, and how many bytes its text has."""
        if len(ids) and int(ids.max()) >= self.tokenizer.vocab_size:
            raise DataError(f"the tokenizer made the id {ids.max()}, but has only {self.tokenizer.vocab_size:,} tokens")
        self.extend(np.concatenate([self._begin, ids, self._end]))
        self.end_document(text_bytes)

    def extend(self, ids: NDArray[np.integer]) -> None:
        """More tokens of the document under way, as they stand; `end_document` ends it."""
        self._pending += ids.astype(self.dtype).tobytes()
        self._length += len(ids)
        if len(self._pending) >= BLOCK:
            self._flush(len(self._pending) // BLOCK * BLOCK)

    def end_document(self, text_bytes: int) -> None:
        if text_bytes > MOST_BYTES:
            told = f"document {self.n_docs:,} has {text_bytes:,} bytes of text"
            fix = "Cut it into shorter documents; for nanoGPT's files, --end_of_text does."
            raise DataError(f"{told}; one holds at most {MOST_BYTES:,}", fix)
        self._offsets.append(self.n_tokens + self._length)
        self._doc_bytes.append(text_bytes)
        self._length = 0

    def _flush(self, size: int) -> None:
        with memoryview(self._pending) as view:
            for start in range(0, size, BLOCK):
                self._blocks.append(xxhash.xxh3_64_intdigest(view[start : min(start + BLOCK, size)]))
            with writing(self.path):
                self._file.write(view[:size])
        del self._pending[:size]

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._flush(len(self._pending))
        with writing(self.path):
            self._file.close()
        if kind is None:
            self._write_index()

    def _write_index(self) -> None:
        specials = [NO_TOKEN if token is None else token for token in (self.tokenizer.bos_id, self.tokenizer.eos_id)]
        sizes = (self.dtype.itemsize, self.tokenizer.vocab_size, self.n_docs, self.n_tokens)
        identity = bytes.fromhex(self.tokenizer.hash)[:16]
        header = HEADER.pack(MAGIC, VERSION, *sizes, *specials, identity, 0)[:CHECKSUM_AT]
        tables = [
            np.asarray(self._offsets, dtype="<u8").tobytes(),
            np.asarray(self._doc_bytes, dtype="<u4").tobytes(),
            np.asarray(self._blocks, dtype="<u8").tobytes(),
        ]
        checksum = xxhash.xxh3_64(header)
        for table in tables:
            checksum.update(table)
        with writing(self.index_path), open(self.index_path, "wb") as file:
            for part in (header, struct.pack("<Q", checksum.intdigest()), *tables):
                file.write(part)


# Reading --------------------------------------------------------------------------------------------------------------


class TokenStore:
    """One split of a tokens folder, memory-mapped."""

    def __init__(self, folder: Path, name: str, manifest: Manifest):
        """Checks header, sizes and checksum of the index; use `open_tokens`, which checks the folder first.

        CorruptionError when a file is not what was written."""
        self.folder, self.name = folder, name
        self.path, self.index_path = folder / f"{name}.bin", folder / f"{name}.index"
        for path in (self.path, self.index_path):
            if path.name not in manifest.files:
                self._broken(folder / "manifest.json", f"lists no {path.name}")
        index = map_file(self.index_path)
        if len(index) < HEADER.size:
            self._broken(self.index_path, f"holds {len(index):,} bytes but its header alone has {HEADER.size}")
        magic, version, width, vocab, n_docs, n_tokens, _, _, tokenizer, checksum = HEADER.unpack_from(index)
        if magic != MAGIC:
            self._broken(self.index_path, f"is no token index: it begins with {bytes(magic)!r}, not {MAGIC!r}")
        if version != VERSION:
            self._broken(self.index_path, f"has version {version}; this seedbed reads version {VERSION}")
        if width not in (2, 4) or (width == 2 and vocab > 1 << 16):
            self._broken(self.index_path, f"promises {width} bytes a token for a vocabulary of {vocab:,}")
        n_blocks = -(-n_tokens * width // BLOCK)
        promised = HEADER.size + 8 * (n_docs + 1) + 4 * n_docs + 8 * n_blocks
        if len(index) != promised:
            told = f"{n_docs:,} documents and {n_tokens:,} tokens make {promised:,}"
            self._broken(self.index_path, f"holds {len(index):,} bytes but {told}")
        found = xxhash.xxh3_64(memoryview(index)[:CHECKSUM_AT])
        with memoryview(index) as view:
            for start in range(HEADER.size, len(index), BLOCK):
                found.update(view[start : start + BLOCK])
        if found.intdigest() != checksum:
            told = f"its checksum is {found.intdigest():016x} but its header promises {checksum:016x}"
            self._broken(self.index_path, f"was changed: {told}")
        # Whole in itself, it may still be that of another store, whose .bin its hashes of blocks would vouch for.
        verify_file(folder, manifest, self.index_path.name)
        self.n_docs, self.n_tokens, self.vocab_size = int(n_docs), int(n_tokens), int(vocab)
        self.tokenizer_hash: bytes = tokenizer
        """The first 16 bytes of the tokenizer's SHA-256."""
        self.dtype = np.dtype(f"<u{width}")
        self.fingerprint = f"{manifest.files[self.path.name].sha256}:{manifest.files[self.index_path.name].sha256}"
        """Names the content: hashes of both files."""
        self._offsets = np.ndarray(n_docs + 1, "<u8", index, HEADER.size)
        self.doc_bytes: NDArray[np.uint32] = np.ndarray(n_docs, "<u4", index, HEADER.size + self._offsets.nbytes)
        """UTF-8 bytes of each document's text."""
        self._hashes = np.ndarray(n_blocks, "<u8", index, len(index) - 8 * n_blocks)
        self._check_offsets()
        size = self.path.stat().st_size
        if size != n_tokens * width:
            told = f"but its index promises {n_tokens * width:,}"
            self._broken(self.path, f"holds {size:,} bytes {told}")
        self._bytes = map_file(self.path)
        self._tokens: NDArray[np.unsignedinteger] = np.ndarray(n_tokens, self.dtype, self._bytes)
        self._unchecked = np.ones(n_blocks, dtype=bool)
        self._left = n_blocks
        self._counting = threading.Lock()

    def _broken(self, path: Path, problem: str) -> NoReturn:
        raise CorruptionError(f"{path} {problem}", remake(self.folder, "tokens"))

    def _check_offsets(self) -> None:
        ends = self._offsets
        if self.n_tokens == 0 or self.n_docs == 0:
            self._broken(self.index_path, "holds no tokens")
        if ends[0] != 0 or int(ends[-1]) != self.n_tokens or (ends[1:] < ends[:-1]).any():
            self._broken(self.index_path, f"has document offsets that do not lead from 0 to {self.n_tokens:,}")

    def read(self, start: int, stop: int) -> NDArray[np.unsignedinteger]:
        """Tokens start … stop − 1, a read-only view of the file. CorruptionError when a block there was changed."""
        if not 0 <= start <= stop <= self.n_tokens:
            raise IndexError(f"tokens {start} to {stop} are asked of {self.path}, which holds {self.n_tokens:,}")
        if start < stop:
            self.check(np.array([start]), stop - start)
        return self._tokens[start:stop]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each document."""
        return np.diff(self._offsets.view("<i8"))

    def documents(self, index: int) -> NDArray[np.unsignedinteger]:
        """The tokens of one document, its <s> and </s> included."""
        if not 0 <= index < self.n_docs:
            raise IndexError(f"document {index} is asked of {self.path}, which holds {self.n_docs:,}")
        return self.read(int(self._offsets[index]), int(self._offsets[index + 1]))

    def windows(self, starts: NDArray[np.int64], length: int) -> NDArray[np.unsignedinteger]:
        """Many stretches of equal length at once: [len(starts), length], copied."""
        if length < 1 or (len(starts) and (starts.min() < 0 or int(starts.max()) + length > self.n_tokens)):
            raise IndexError(f"windows of {length} leave {self.path}, which holds {self.n_tokens:,} tokens")
        self.check(starts, length)
        return np.lib.stride_tricks.sliding_window_view(self._tokens, length)[starts]

    def stretches(self, starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.unsignedinteger]:
        """Many stretches of lengths of their own, one behind the other, copied. None is empty."""
        if len(starts) and (starts.min() < 0 or sizes.min() < 1 or int((starts + sizes).max()) > self.n_tokens):
            raise IndexError(f"stretches leave {self.path}, which holds {self.n_tokens:,} tokens, or are empty")
        self.check(starts, sizes)
        shift = starts - (np.cumsum(sizes) - sizes)
        return self._tokens[np.repeat(shift, sizes) + np.arange(sizes.sum())]

    def segments(self, starts: NDArray[np.int64], length: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """For stretches as `windows` takes them, of each token: the number of its document in the stretch, from 0, and
        its position in that document, or in the part of it that the stretch holds. Both [len(starts), length]."""
        begins = np.zeros((len(starts), length), dtype=bool)
        offsets = self._offsets.view("<i8")  # u64 and i64 would meet as floats
        low = np.searchsorted(offsets, starts, side="right")
        counts = np.searchsorted(offsets, starts + length, side="left") - low
        rows = np.repeat(np.arange(len(starts)), counts)
        documents = np.arange(len(rows)) + np.repeat(low - (np.cumsum(counts) - counts), counts)
        begins[rows, offsets[documents] - starts[rows]] = True
        places = np.arange(length)
        segments = np.cumsum(begins, axis=1, dtype=np.int32)
        return segments, places - np.maximum.accumulate(np.where(begins, places, 0), axis=1)

    def check(self, starts: NDArray[np.int64], length: int | NDArray[np.int64]) -> None:
        """Hashes the blocks below these stretches that were not read before; once all are, this costs nothing."""
        if not self._left or not len(starts):
            return
        width = self.dtype.itemsize
        first, last = starts * width // BLOCK, ((starts + length) * width - 1) // BLOCK
        spans = [first + step for step in range(int((last - first).max()) + 1)]
        blocks = np.unique(np.minimum(np.concatenate(spans), np.tile(last, len(spans))))
        for block in blocks[self._unchecked[blocks]]:
            self._check_block(int(block))

    def _check_block(self, block: int) -> None:
        with memoryview(self._bytes) as view:
            found = xxhash.xxh3_64_intdigest(view[block * BLOCK : (block + 1) * BLOCK])
        if found != self._hashes[block]:
            told = f"block {block} (from byte {block * BLOCK:,}) hashes to {found:016x}"
            self._broken(self.path, f"was changed: {told} but the index promises {int(self._hashes[block]):016x}")
        with self._counting:  # batches may be made in threads
            self._left -= int(self._unchecked[block])
            self._unchecked[block] = False


def map_file(path: Path) -> mmap.mmap | bytes:
    """A file's bytes without reading them; an empty one cannot be mapped."""
    try:
        with open(path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


@dataclass(frozen=True)
class Tokens:
    """A tokens folder, opened."""

    train: TokenStore
    val: TokenStore
    tokenizer: Tokenizer
    manifest: Manifest

    def check(self, tokenizer: Tokenizer) -> None:
        """Refuses a tokenizer (a model's, say) that did not make these tokens: DataError. Its chat template, which
        makes no difference to text, may be another."""
        template = tokenizer.chat_template
        own = self.tokenizer if template is None else self.tokenizer.with_template(template)
        if own.hash != tokenizer.hash:
            check_vocabulary(self.train, tokenizer)


def open_tokens(folder: Path | str, verify: bool = False) -> Tokens:
    """Opens both splits and the tokenizer they were made with, and checks that they belong together.

    With `verify` every byte is hashed against the manifest; otherwise the small files are, and token blocks at their
    first read. DataError when the folder is no tokens folder, CorruptionError when a file is not what was written.
    """
    from seedbed.tokenizers.tokenizer import Tokenizer

    folder = Path(folder)
    _refuse_other_tools(folder)
    manifest = open_folder(folder, "tokens", "all" if verify else "sizes")
    if f"{TOKENIZER_FOLDER}/tokenizer.json" not in manifest.files:
        problem = f"{folder / 'manifest.json'} lists no {TOKENIZER_FOLDER}/tokenizer.json"
        raise CorruptionError(problem, remake(folder, "tokens"))
    if not verify:
        for name in manifest.files:
            if name.startswith(f"{TOKENIZER_FOLDER}/"):
                verify_file(folder, manifest, name)
    tokens = Tokens(
        TokenStore(folder, "train", manifest),
        TokenStore(folder, "val", manifest),
        Tokenizer.load(folder / TOKENIZER_FOLDER),
        manifest,
    )
    for store in (tokens.train, tokens.val):
        check_vocabulary(store, tokens.tokenizer)
    return tokens


def _refuse_other_tools(path: Path) -> None:
    """DataError for the token files of another tool, or the folder that they are in."""
    folder = path.parent if path.suffix in (".bin", ".idx") else path
    is_ours = (folder / MANIFEST).is_file() or any(folder.glob("*.index"))
    if path.is_file() == (folder != path) and not is_ours and any(folder.glob("*.bin")):
        raise DataError(
            f"{path} holds tokens of another tool; a tokens folder is needed here",
            f"Make one: seedbed tokens import --tokens {shlex.quote(str(folder))} --format nanogpt|megatron "
            "--tokenizer TOKENIZER --out TOKENS",
        )


def check_vocabulary(store: TokenStore, tokenizer: Tokenizer) -> None:
    """Refuses a tokenizer (a model's, say) that did not make these tokens: the same ids would mean other texts."""
    fix = (
        "Tokenize the corpus with this tokenizer, into a new folder: "
        "seedbed tokenize --corpus CORPUS --tokenizer MODEL --out TOKENS"
    )
    if store.vocab_size != tokenizer.vocab_size:
        have = f"{store.path} was made with a vocabulary of {store.vocab_size:,}"
        raise DataError(f"{have}, but this tokenizer has {tokenizer.vocab_size:,} tokens", fix)
    if store.tokenizer_hash != bytes.fromhex(tokenizer.hash)[:16]:
        have = f"{store.path} was made with tokenizer {store.tokenizer_hash.hex()[:12]}…"
        raise DataError(f"{have}, but this one is {tokenizer.hash[:12]}…: the vocabularies differ", fix)
