"""What pretraining learns from: the folders, mixtures and curricula of a config as one source of batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from seedbed.data.batches.batch import BatchSource, TokenBatch
from seedbed.data.batches.best_fit import BestFitSource
from seedbed.data.batches.config import TrainingDataConfig
from seedbed.data.batches.curriculum import LengthCurriculum
from seedbed.data.batches.infilling import Infilling
from seedbed.data.batches.loader import WindowSource
from seedbed.data.batches.mixture import MixtureSource, Phase
from seedbed.data.batches.prefetch import Prefetch
from seedbed.data.tokens import Tokens, TokenStore, open_tokens
from seedbed.errors import ConfigError

Source = BatchSource[TokenBatch]

Asking = Callable[[Source, int], Source]
"""What an objective does to rows before it asks for their targets; called with a source and a seed."""


def next_tokens(source: Source, seed: int) -> Source:
    """Every token is asked for, from those before it: rows stay what they are."""
    return source


def open_folders(config: TrainingDataConfig, verify: bool = False) -> list[Tokens]:
    """The tokens folders of a config. DataError when they were not made with one tokenizer; the rest as `open_tokens`,
    and ConfigError when no folder is given."""
    folders = [open_tokens(part.tokens, verify) for part in config.parts]
    for tokens in folders:
        tokens.check(folders[0].tokenizer)
    return folders


class TrainingData:
    """Rows of `length` tokens from opened folders, in an order that `seed` chooses."""

    def __init__(
        self,
        config: TrainingDataConfig,
        folders: Sequence[Tokens],
        length: int,
        seed: int,
        asking: Asking = next_tokens,
    ):
        """ConfigError when the tokenizer lacks what the packing needs."""
        self.config, self.folders, self.length, self.seed, self.asking = config, folders, length, seed, asking
        self.tokenizer = folders[0].tokenizer
        self._parts = [self._rows(tokens.train) for tokens in folders]

    def source(self, first: Callable[[int], int]) -> Source:
        """What is learned from when a step begins with the sample that `first` says."""
        config, seed = self.config, self.seed
        source: Source = self._mixed(first) if config.mixture else self._parts[0]
        if config.infilling:
            source = Infilling(source, self.tokenizer, config.infilling, seed)
        if config.lengths:
            phases = [(first(phase.from_step), phase.length) for phase in config.lengths]
            source = LengthCurriculum(source, self.length, phases)
        source = self.asking(source, seed)
        return Prefetch(source, config.workers) if config.workers else source

    def validation(self, seed: int) -> Source:
        """Rows of the validation text of all folders, of each by its tokens. Documents are isolated where they are in
        training; stride, curricula and infilling are for training alone."""
        isolate = self.config.packing != "concatenate"
        rows = [WindowSource(tokens.val, self.length, seed, isolate=isolate) for tokens in self.folders]
        parts = [self.asking(part, seed) for part in rows]
        sizes = [part.samples for part in parts]
        if len(parts) == 1:
            return parts[0]
        return MixtureSource(parts, [Phase(0, tuple(sizes))], sum(sizes), seed, self._names)

    @property
    def _names(self) -> list[str] | None:
        """Of the folders: what tells their paths apart. None when one is there twice."""
        paths = [part.tokens.resolve() for part in self.config.parts]
        names = [path.relative_to(os.path.commonpath(paths)).as_posix() for path in paths]
        return names if len(set(names)) == len(names) else None

    @property
    def notes(self) -> dict[str, Any]:
        """For the result: of best-fit packing the shares of padding and of documents cropped and cut, by folder."""
        packed = zip(self.config.parts, self._parts, strict=True)
        reports = {str(part.tokens): rows.report for part, rows in packed if isinstance(rows, BestFitSource)}
        return {"best_fit": reports} if reports else {}

    def _rows(self, store: TokenStore) -> WindowSource | BestFitSource:
        """Of one folder."""
        config = self.config
        if config.packing != "best_fit":
            isolate = config.packing == "isolate"
            return WindowSource(store, self.length, self.seed, stride=config.stride, isolate=isolate)
        if self.tokenizer.pad_id is None:
            raise ConfigError("data.packing best_fit needs a tokenizer with a padding token", "Choose isolate instead.")
        return BestFitSource(store, self.length, self.seed, self.tokenizer.pad_id)

    def _mixed(self, first: Callable[[int], int]) -> MixtureSource:
        parts, sizes = self.config.mixture, [rows.samples for rows in self._parts]
        if parts[0].weight is not None:
            weights = [part.weight or 0.0 for part in parts]
            epoch = sum(sizes)
        else:  # the rows that each folder gives to an epoch are its weight
            weights = [
                part.token_budget / self.length if part.token_budget is not None else (part.epochs or 1.0) * size
                for part, size in zip(parts, sizes, strict=True)
            ]
            epoch = max(1, round(sum(weights)))
        later = [Phase(first(phase.from_step), tuple(phase.weights)) for phase in self.config.phases]
        return MixtureSource(self._parts, [Phase(0, tuple(weights)), *later], epoch, self.seed)
