"""What the model as it begins makes of the data, found out once: the reference of DPO, KTO and their relatives.

So there is never a second copy of the model, and a resumed run reads the very numbers it began with.

Shape suffixes: N rows of the data, K answers of a row.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seedbed.alignment.log_probabilities import completion_log_probabilities
from seedbed.alignment.source import AnswerSource
from seedbed.model.transformer import Transformer
from seedbed.model.weights import read_headers, read_weights, write_weights
from seedbed.progress import progress
from seedbed.runs import MANIFEST, input_hash, new_folder, open_folder
from seedbed.training.parallel.world import World
from seedbed.training.precision import Precision
from seedbed.training.settings import REFERENCE

logger = logging.getLogger(__name__)


@torch.no_grad()
def reference_log_probabilities(model: Transformer, source: AnswerSource, precision: Precision, at_once: int) -> Tensor:
    """log p (N, K) of every answer of a source, `at_once` rows of it in one pass."""
    parts, count = [], len(source.rows)
    with progress("log-probabilities of the reference", total=count, unit="rows") as advance:
        for first in range(0, count, at_once):
            numbers = range(first, min(first + at_once, count))
            batch = source.chosen(numbers).completions.to(model.device)
            with precision.compute():
                logs_C = completion_log_probabilities(model, batch)
            parts.append(logs_C.float().cpu().unflatten(0, (-1, len(numbers))).T)
            advance(len(numbers))
    return torch.cat(parts).contiguous()


@dataclass(frozen=True)
class Reference:
    """Where a run keeps them, and what they are made from."""

    run: Path
    inputs: Mapping[str, Path]
    precision: Precision
    at_once: int

    def tell(self, model: Transformer, sources: Mapping[str, AnswerSource]) -> None:
        """Gives each source its log-probabilities: those in the run's folder, if they are of the same making, else
        computed now, with the model as it begins, and put there. CorruptionError when a byte of them has changed."""
        folder = self.run / REFERENCE
        config: dict[str, Any] = {name: source.content for name, source in sources.items()}
        config |= {"precision": self.precision.name, "over": model.adapter.over if model.adapter else None}
        found: Mapping[str, Tensor] | None = None
        if (folder / MANIFEST).is_file():
            manifest = open_folder(folder, "reference", verify="all")
            if manifest.config == config and manifest.inputs == {k: input_hash(v) for k, v in self.inputs.items()}:
                found = read_weights(read_headers(folder))
        if found is None:
            found = {
                name: reference_log_probabilities(model, source, self.precision, self.at_once)
                for name, source in sources.items()
            }
            if World.here().leads:  # it writes, and the others come to the same numbers
                with new_folder(folder, "reference", inputs=self.inputs, config=config, overwrite=True) as staging:
                    write_weights(staging, found)
                logger.info("log-probabilities of the reference: %s", folder)
        for name, source in sources.items():
            source.reference_NK = found[name]
