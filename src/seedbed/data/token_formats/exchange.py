"""From a tokens folder to another tool's files, and back: `seedbed tokens`.

An import makes what `seedbed tokenize` would have made of the same documents: each stands as <s> … </s> where the
tokenizer has them, whether the other tool put them there or not, and says how many bytes of text it has.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from seedbed.data.config import TokensConfig
from seedbed.data.corpus import SPLITS, Split
from seedbed.data.token_formats import int32, megatron, nanogpt
from seedbed.data.token_formats.files import Advance, Documents, cut
from seedbed.data.tokenize import open_tokenizer, write_tokens_card
from seedbed.data.tokens import TOKENIZER_FOLDER, StoreWriter, open_tokens
from seedbed.errors import ConfigError, DataError
from seedbed.progress import progress
from seedbed.runs import Manifest, command, finished_result, new_folder, write_card, write_result
from seedbed.tokenizers import Tokenizer

SHOWN = 60
"""Tokens that are decoded, and characters of them that are shown, of where an import begins."""

WRITE = {"megatron": megatron.write, "nanogpt": nanogpt.write, "int32": int32.write}


def exchange(config: TokensConfig) -> dict[str, Any]:
    """Exports or imports; returns what result.json in the new folder says.

    DataError for files that are not of the format, do not belong together or hold ids beyond the tokenizer's
    vocabulary, CorruptionError for a tokens folder that is not what was written.
    """
    return export_tokens(config) if config.action == "export" else import_tokens(config)


def export_tokens(config: TokensConfig) -> dict[str, Any]:
    """Writes both splits in the format, and beside them the tokenizer. Tokens stay as they are, <s> and </s> too."""
    started = time.monotonic()
    tokens = open_tokens(config.tokens)
    settings = {"format": config.format, "train": config.train, "val": config.val}
    result: dict[str, Any] = {"stage": "tokens", "format": config.format}
    inputs = {"tokens": tokens.manifest}
    if (done := finished_result(config.out, "export", lambda: inputs, settings)) is not None:
        return done
    with new_folder(config.out, "export", inputs=inputs, config=settings) as folder:
        (folder / TOKENIZER_FOLDER).mkdir()
        tokens.tokenizer.save(folder / TOKENIZER_FOLDER)
        for split, store in (("train", tokens.train), ("val", tokens.val)):
            with progress(f"exporting {split}", store.n_tokens, "tokens") as advance:
                WRITE[config.format](store, folder, getattr(config, split), advance)
            result[split] = {"documents": store.n_docs, "tokens": store.n_tokens}
        result |= _ending(config, started)
        _write_export_card(folder, config, result, tokens.tokenizer)
        write_result(folder, result)
    return result


def import_tokens(config: TokensConfig) -> dict[str, Any]:
    """Makes a tokens folder of the other tool's files."""
    assert config.tokenizer is not None  # the config sees to it
    started = time.monotonic()
    tokenizer, made_from = open_tokenizer(config.tokenizer)
    _check_end_of_text(config.end_of_text, tokenizer)
    found = _splits(config, tokenizer)
    inputs: dict[str, Path | Manifest | str] = {"tokenizer": made_from}
    for split, documents in found.items():
        inputs |= {f"{split}{path.suffix}": path for path in documents.files if path not in inputs.values()}
    settings = {name: getattr(config, name) for name in ("format", "end_of_text", "validation_fraction")}
    result: dict[str, Any] = {"stage": "tokens", "format": config.format}
    if (done := finished_result(config.out, "tokens", lambda: inputs, settings)) is not None:
        return done
    with new_folder(config.out, "tokens", inputs=inputs, config=settings) as folder:
        (folder / TOKENIZER_FOLDER).mkdir()
        tokenizer.save(folder / TOKENIZER_FOLDER)
        for split, documents in found.items():
            with (
                StoreWriter(folder, split, tokenizer) as writer,
                progress(f"importing {split}", len(documents.tokens), "tokens") as advance,
            ):
                opening = _copy(documents, writer, tokenizer, advance)
            if split == "train":  # a person sees here whether it is the tokenizer that made these tokens
                result["begins"] = " ".join(tokenizer.decode(opening).split())[:SHOWN]
            if writer.n_tokens == 0:
                raise _nothing(documents, config, split)
            result[split] = {"documents": writer.n_docs, "tokens": writer.n_tokens, "bytes": writer.n_bytes}
        count, size = (sum(result[split][key] for split in SPLITS) for key in ("tokens", "bytes"))
        result |= {"vocab_size": tokenizer.vocab_size, "bytes_per_token": round(size / count, 4)}
        result |= _ending(config, started)
        write_tokens_card(folder, tokenizer, result)
        write_result(folder, result)
    return result


def _ending(config: TokensConfig, started: float) -> dict[str, Any]:
    seconds = round(time.monotonic() - started, 3)
    return {"seconds": seconds, "out": str(config.out), "command": command("tokens", config)}


def _check_end_of_text(end_of_text: int | None, tokenizer: Tokenizer) -> None:
    if end_of_text is None:
        return
    if end_of_text >= tokenizer.vocab_size:
        raise ConfigError(f"end_of_text must be below the vocabulary of {tokenizer.vocab_size:,}, got {end_of_text}")
    if end_of_text == tokenizer.bos_id != tokenizer.eos_id:
        raise ConfigError(f"end_of_text is {end_of_text}, which begins documents with this tokenizer")


def _splits(config: TokensConfig, tokenizer: Tokenizer) -> dict[Split, Documents]:
    """The documents of both splits: of their own files, or those of one file at even distances for validation."""
    if config.validation_fraction is None:
        return {split: _find(config, getattr(config, split), tokenizer) for split in SPLITS}
    every = round(1 / config.validation_fraction)
    whole = {split: _find(config, config.train, tokenizer) for split in SPLITS}  # each goes through its spans once
    return {
        split: replace(documents, spans=_parted(documents.spans, every, held_out=split == "val"))
        for split, documents in whole.items()
    }


def _parted(spans: Iterable[tuple[int, int]], every: int, held_out: bool) -> Iterator[tuple[int, int]]:
    return (span for number, span in enumerate(spans, start=1) if (number % every == 0) == held_out)


def _nothing(documents: Documents, config: TokensConfig, split: Split) -> DataError:
    """The error for a split without a token."""
    path = documents.files[0]
    if split == "train" or config.validation_fraction is None:
        return DataError(f"{path} holds no tokens")
    apart = "Tell documents apart by --end_of_text, or give" if config.format == "nanogpt" else "Give"
    problem = f"{path} holds too few documents to keep {config.validation_fraction} of them apart"
    return DataError(problem, f"{apart} a larger --validation_fraction.")


def _find(config: TokensConfig, name: str, tokenizer: Tokenizer) -> Documents:
    if config.format == "megatron":
        return megatron.read(config.tokens, name)
    if config.format == "int32":
        return int32.read(config.tokens, name)
    return nanogpt.read(config.tokens, name, config.end_of_text, tokenizer.bos_id)


def _copy(documents: Documents, writer: StoreWriter, tokenizer: Tokenizer, advance: Advance) -> list[int]:
    """Each document as <s> … </s>, in pieces, with the bytes its tokens decode to. Returns how the first begins."""
    opening: list[int] = []
    tokens, path, vocab_size = documents.tokens, documents.files[0], tokenizer.vocab_size
    bos, eos = (np.array([] if id is None else [id], np.uint32) for id in (tokenizer.bos_id, tokenizer.eos_id))
    bytes_of = tokenizer.token_bytes()
    for number, (start, stop) in enumerate(documents.spans):
        ends = start < stop and bool(tokens[stop - 1] == tokenizer.eos_id)
        # Where one token is both, alone it is an end.
        begins = start < stop - ends and tokens[start] == tokenizer.bos_id
        text_bytes = 0
        if not begins:
            writer.extend(bos)
        for first, last in cut(start, stop):
            ids = tokens[first:last]
            if ids.min() < 0 or ids.max() >= vocab_size:
                wrong = ids[((ids < 0) | (ids >= vocab_size)).argmax()]
                told = f"document {number:,} has the token {wrong}"
                problem = f"{path}: {told}, but the tokenizer has the ids 0 to {vocab_size - 1:,}"
                raise DataError(problem, "Give the --tokenizer that these tokens were made with.")
            if number == 0:
                opening = [*opening, *ids[:SHOWN].tolist()][:SHOWN]
            sizes = bytes_of[ids]
            size = int(sizes.sum(dtype=np.int64))
            if size and not text_bytes:
                size -= _bytes_dropped(tokenizer, int(ids[(sizes > 0).argmax()]))
            text_bytes += size
            writer.extend(ids)
            advance(last - first)
        if not ends:
            writer.extend(eos)
        writer.end_document(text_bytes)
    return opening


def _bytes_dropped(tokenizer: Tokenizer, opening: int) -> int:
    """1 where decoding takes away a space that the tokenizer has put before the text (Llama 2's do)."""
    return len(tokenizer.decode([opening], continues=True)) - len(tokenizer.decode([opening]))


def _write_export_card(folder: Path, config: TokensConfig, result: dict[str, Any], tokenizer: Tokenizer) -> None:
    use = {
        "megatron": f"`{config.train}` is Megatron's `--train-data-path`, `{config.val}` its `--valid-data-path`.",
        "nanogpt": "Put the .bin files into a folder below nanoGPT's `data/`.",
        "int32": "A record: its number of tokens, then they, each 32 bits; the .index has the offset of each record.",
    }
    write_card(
        folder,
        f"Tokens for other tools: {config.format}",
        {
            "What it is": [
                *(
                    f"{split}: {result[split]['tokens']:,} tokens in {result[split]['documents']:,} documents"
                    for split in SPLITS
                ),
                f"Vocabulary: {tokenizer.vocab_size:,} ({tokenizer.kind}); the tokenizer is in `{TOKENIZER_FOLDER}`.",
                "Each document stands as `<s>` text `</s>`, where the tokenizer has them.",
            ],
            "How it was made": [f"`{result['command']}`", "The hash of the tokens is in manifest.json."],
            "How to use it": use[config.format],
        },
    )
