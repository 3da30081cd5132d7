"""Things small enough to train in a second: a corpus, its tokens, runs, and sources of batches made by hand."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from seedbed.configuration import from_arguments
from seedbed.data.batches.batch import IGNORE, TokenBatch
from seedbed.data.config import PrepareConfig, TokenizeConfig
from seedbed.data.prepare import prepare
from seedbed.data.tokenize import tokenize
from seedbed.model.config import ModelConfig
from seedbed.model.folder import save_model
from seedbed.model.recipes import Held, Recipes
from seedbed.model.transformer import Transformer
from seedbed.optim.config import OptimizerConfig, ScheduleConfig
from seedbed.runs import new_folder
from seedbed.tokenizers import bytes as byte_tokenizer
from seedbed.tokenizers.tokenizer import Tokenizer
from seedbed.training.config import PretrainConfig, TrainConfig
from seedbed.training.display import Display
from seedbed.training.objective import NextToken
from seedbed.training.observers.observer import Observer
from seedbed.training.pretrain import pretrain
from seedbed.training.trainer import Trainer

VOCABULARY = 263
"""Of the byte tokenizer."""

TINY = ModelConfig(vocab_size=VOCABULARY, layers=1, width=16, heads=2, ff_width=32, context=32, pad_id=0).resolve()

TINY_ARGUMENTS = (
    *("--data.length=16", "--model.layers=1", "--model.width=16", "--model.heads=2", "--model.ff_width=32"),
    *("--model.context=32", "--train.batch=4", "--train.validation_rows=8", "--train.log_every=1"),
    "--train.device=cpu",
)

WORDS = "the seed of a small tree lies in dark soil and waits for rain näh — 木".split()  # noqa: SIM905 (shorter)


def write_text(path: Path, documents: int = 12, words: int = 60) -> Path:
    """A .jsonl file of nonsense."""
    chance = random.Random(0)
    texts = (" ".join(chance.choices(WORDS, k=words)) for _ in range(documents))
    path.write_text("".join(json.dumps({"text": f"{i}: {text}"}) + "\n" for i, text in enumerate(texts)))
    return path


def make_tokens(place: Path, tokenizer: Tokenizer | None = None) -> Path:
    """Corpus, tokenizer (of bytes when left out) and tokens, as folders of `place`; the tokens folder."""
    source = write_text(place / "source.jsonl")
    prepare(PrepareConfig(source=str(source), out=place / "corpus", validation_fraction=0.2))
    with new_folder(place / "tokenizer", "tokenizer") as folder:
        (tokenizer or byte_tokenizer.build()).save(folder)
    tokenize(TokenizeConfig(corpus=place / "corpus", tokenizer=place / "tokenizer", out=place / "tokens"))
    return place / "tokens"


def pretrain_config(tokens: Path, out: Path, *arguments: str) -> PretrainConfig:
    """Of a run that takes milliseconds a step."""
    return from_arguments(PretrainConfig, [f"--data.tokens={tokens}", f"--out={out}", *TINY_ARGUMENTS, *arguments])


def tiny_run(tokens: Path, out: Path, *arguments: str) -> dict[str, Any]:
    return pretrain(pretrain_config(tokens, out, *arguments))


def records(run: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def same_bits(run: Path, other: Path) -> bool:
    """Every byte of the weights and of the metrics."""
    lines = [(place / "metrics.jsonl").read_bytes() for place in (run, other)]
    return weights(run) == weights(other) and lines[0] == lines[1]


# Trainers made by hand -----------------------------------------------------------------------------------------------


class Rows:
    """A batch source over given rows, over and over."""

    def __init__(self, tokens_NT: torch.Tensor, targets_NT: torch.Tensor, fingerprint: str = "rows"):
        self.tokens_NT, self.targets_NT = tokens_NT, targets_NT
        self.fingerprint = fingerprint

    @property
    def samples(self) -> int:
        return len(self.tokens_NT)

    def batch(self, first: int, count: int) -> TokenBatch:
        index = torch.arange(first, first + count) % self.samples
        return TokenBatch(self.tokens_NT[index], self.targets_NT[index])


def random_rows(count: int, length: int = 12, *, seed: int = 0, targets: Sequence[int] | None = None) -> Rows:
    """Row i has targets at `targets[i]` places; everywhere when left out."""
    generator = torch.Generator().manual_seed(seed)
    tokens_NT = torch.randint(7, VOCABULARY, (count, length), generator=generator)
    targets_NT = torch.randint(7, VOCABULARY, (count, length), generator=generator)
    for row, kept in enumerate(targets or []):
        places = torch.randperm(length, generator=generator)[: length - kept]
        targets_NT[row, places] = IGNORE
    return Rows(tokens_NT, targets_NT)


def tiny_model(config: ModelConfig = TINY) -> Transformer:
    """The same fresh model each time, but no weight begins at nought, so that every gradient is a number."""
    torch.manual_seed(0)
    model = Transformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model


def watch_kept(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """What tells, from now on, how many bytes forward passes have left for a backward pass, weights aside."""
    pack = Recipes._pack
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    seen: dict[int, tuple[StorageWeakRef, int]] = {}

    def watched(recipes: Recipes, tensor: torch.Tensor) -> Any:
        packed, storage = pack(recipes, tensor), StorageWeakRef(tensor.untyped_storage())
        if isinstance(packed, Held) and storage.cdata not in weights:
            seen[storage.cdata] = storage, tensor.untyped_storage().nbytes()
        return packed

    monkeypatch.setattr(Recipes, "_pack", watched)
    return lambda: sum(size for storage, size in seen.values() if not storage.expired())


def save_tiny_model(folder: Path, **sizes: Any) -> Path:
    """A fresh model over bytes as a model folder."""
    tokenizer = byte_tokenizer.build()
    config = ModelConfig(**{"layers": 1, "width": 16, "heads": 2, "ff_width": 64, "context": 32} | sizes)
    save_model(folder, tiny_model(config.with_tokenizer(tokenizer)), tokenizer, inputs={}, card={})
    return folder


def tiny_trainer(
    run: Path,
    source: Rows | None = None,
    *,
    validation: Rows | None = None,
    model: ModelConfig = TINY,
    optimizer: OptimizerConfig | None = None,
    observers: Sequence[Observer] = (),
    **train: Any,
) -> Trainer:
    """A trainer of `tiny_model`; keyword arguments are those of TrainConfig."""
    run.mkdir(exist_ok=True)
    return Trainer(
        tiny_model(model),
        NextToken(),
        source or random_rows(16),
        validation,
        config=TrainConfig(**{"steps": 4, "batch": 4, "log_every": 1} | train),
        optimizer=optimizer or OptimizerConfig(),
        schedule=ScheduleConfig(),
        run=run,
        display=Display("test", flops_per_token=1, peak_flops=1, quiet=True),
        observers=observers,
    )
