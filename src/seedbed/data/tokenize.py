"""`seedbed tokenize`: a corpus and a tokenizer become a tokens folder, in order, whatever the number of processes."""

from __future__ import annotations

import functools
import shlex
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from seedbed.data.config import TokenizeConfig
from seedbed.data.corpus import SPLITS, Corpus, Split
from seedbed.data.executors import run_local
from seedbed.data.tokens import TOKENIZER_FOLDER, StoreWriter
from seedbed.devices import count_cores
from seedbed.errors import DataError
from seedbed.progress import progress
from seedbed.runs import MANIFEST, Manifest, command, finished_result, new_folder, open_folder, write_card, write_result
from seedbed.tokenizers.folder import MAKER

if TYPE_CHECKING:
    from seedbed.tokenizers.tokenizer import Tokenizer

BATCH_CHARACTERS = 4 << 20
BATCH_DOCUMENTS = 1024
"""Documents go to the tokenizer in groups of at most so much, which bounds memory."""
BYTES_PER_WORKER = 16 << 20
"""For less than this of text no further process is worth its start."""

Encoded = tuple[list[NDArray[np.uint32]], list[int]]
"""Of a group of texts: their ids, and their sizes in bytes."""


def tokenize(config: TokenizeConfig) -> dict[str, Any]:
    """Encodes a corpus, document by document as <s> text </s>, into a tokens folder; returns what result.json says.

    Errors of the corpus or tokenizer folder are as in `open_folder`.
    """
    started = time.monotonic()
    depth: Literal["sizes", "all"] = "all" if config.verify else "sizes"
    corpus = Corpus.open(config.corpus, depth)
    tokenizer, made_from = open_tokenizer(config.tokenizer, depth)
    inputs: dict[str, Path | Manifest | str] = {"corpus": corpus.manifest, "tokenizer": made_from}
    if (done := finished_result(config.out, "tokens", lambda: inputs)) is not None:
        return done
    with new_folder(config.out, "tokens", inputs=inputs) as folder:
        (folder / TOKENIZER_FOLDER).mkdir()
        tokenizer.save(folder / TOKENIZER_FOLDER)
        workers = config.workers or min(count_cores(), 1 + sum(corpus.stats["bytes"].values()) // BYTES_PER_WORKER)
        splits: dict[str, dict[str, int]] = {
            split: _encode(corpus, split, tokenizer, folder, workers) for split in SPLITS
        }
        seconds = time.monotonic() - started
        tokens, size = (sum(split[key] for split in splits.values()) for key in ("tokens", "bytes"))
        result = {
            "stage": "tokenize",
            **splits,
            "vocab_size": tokenizer.vocab_size,
            "bytes_per_token": round(size / tokens, 4),
            "tokens_per_second": round(tokens / max(seconds, 1e-3)),  # a coarse clock may not have moved
            "seconds": round(seconds, 3),
            "out": str(config.out),
            "command": command("tokenize", config),
        }
        write_tokens_card(folder, tokenizer, result)
        write_result(folder, result)
    return result


def open_tokenizer(folder: Path, verify: Literal["sizes", "all"] = "sizes") -> tuple[Tokenizer, Manifest | str]:
    """The tokenizer of a folder, and what names it as an input. Errors are as in `open_folder` and `Tokenizer.load`."""
    from seedbed.tokenizers.tokenizer import Tokenizer

    if folder.is_file():
        made = f"Make one: seedbed tokenizer --import_from {shlex.quote(str(folder))} --out TOKENIZER"
        made = made if folder.suffix in (".json", ".model", ".tiktoken") else MAKER
        fix = f"Give the folder it is in: {folder.parent}" if folder.name == "tokenizer.json" else made
        raise DataError(f"{folder} is a file; a tokenizer folder is needed here", fix)
    if not (folder / "tokenizer.json").is_file() and (folder / TOKENIZER_FOLDER).is_dir():
        folder = folder / TOKENIZER_FOLDER  # of a run, or of other tokens
    # A folder of another tool has no manifest: then the tokenizer's own hash names it.
    made_here = (folder / MANIFEST).exists()
    made_from = open_folder(folder, ("tokenizer", "model"), verify) if made_here else None
    tokenizer = Tokenizer.load(folder)
    return tokenizer, made_from or tokenizer.hash


def _encode(corpus: Corpus, split: Split, tokenizer: Tokenizer, folder: Path, workers: int) -> dict[str, int]:
    groups = _batches(document.text for document in corpus.documents(split))
    encode = functools.partial(_encode_group, folder=folder / TOKENIZER_FOLDER, hash=tokenizer.hash)
    with (
        StoreWriter(folder, split, tokenizer) as writer,
        progress(f"tokenizing {split}", corpus.stats["bytes"][split]) as advance,
    ):
        for ids, sizes in run_local(encode, groups, workers):
            for one, size in zip(ids, sizes, strict=True):
                writer.add(one, size)
            advance(sum(sizes))
    return {"documents": writer.n_docs, "tokens": writer.n_tokens, "bytes": writer.n_bytes}


def _encode_group(texts: list[str], folder: Path, hash: str) -> Encoded:
    """The ids of each text, and how many bytes of UTF-8 it has. Runs in a worker."""
    return _load_once(folder, hash).encode_batch(texts), [len(text.encode()) for text in texts]


@functools.lru_cache(maxsize=1)
def _load_once(folder: Path, hash: str) -> Tokenizer:
    """Once in a process. The hash is there because another tokenizer may come to lie in the same folder later."""
    from seedbed.tokenizers.tokenizer import Tokenizer

    return Tokenizer.load(folder)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts in groups of bounded size."""
    group: list[str] = []
    length = 0
    for text in texts:
        group.append(text)
        length += len(text)
        if length >= BATCH_CHARACTERS or len(group) >= BATCH_DOCUMENTS:
            yield group
            group, length = [], 0
    if group:
        yield group


def write_tokens_card(folder: Path, tokenizer: Tokenizer, result: dict[str, Any]) -> None:
    """README.md of a tokens folder, from what its result.json says."""
    write_card(
        folder,
        "Tokens",
        {
            "What it is": [
                *(
                    f"{split}: {result[split]['tokens']:,} tokens in {result[split]['documents']:,} documents, "
                    f"{result[split]['bytes']:,} bytes of text"
                    for split in SPLITS
                ),
                f"{result['bytes_per_token']} bytes a token; vocabulary: {tokenizer.vocab_size:,} ({tokenizer.kind}).",
                "Each document stands as `<s>` text `</s>`, where the tokenizer has them.",
            ],
            "How it was made": [f"`{result['command']}`", "The hashes of what it was made from are in manifest.json."],
            "How to use it": [
                "`seedbed pretrain --data.tokens FOLDER --out RUN`",
                "`train.bin` and `val.bin` are raw little-endian "
                f"u{8 * (2 if tokenizer.vocab_size <= 1 << 16 else 4)}, as nanoGPT reads them.",
            ],
        },
    )
