"""What benchmarks share whose claim is for each of several seeds: their command line, and a toy model to begin with."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from seedbed.configuration import from_arguments
from seedbed.model.config import ModelConfig
from seedbed.model.folder import save_model
from seedbed.model.transformer import Transformer
from seedbed.shards import write_rows
from seedbed.tokenizers import bytes as byte_tokenizer
from seedbed.tuning.config import FinetuneConfig
from seedbed.tuning.finetune import finetune

Figures = dict[str, Any]


def fine_tuned(
    place: Path, model: ModelConfig, rows: Iterable[Mapping[str, str]], seed: int, options: list[str]
) -> Path:
    """The run of a model of bytes, made of chance by the seed, that was fine-tuned on rows of prompt and response."""
    tokenizer = byte_tokenizer.build()
    torch.manual_seed(seed)
    save_model(place / "fresh", Transformer(model.with_tokenizer(tokenizer)), tokenizer, inputs={}, card={})
    write_rows(place / "shown.jsonl", rows)
    rates = ("matrix_rate=0.02", "embedding_rate=0.05", "head_rate=0.004", "vector_rate=0.01")
    settings = (
        *(f"--model={place / 'fresh'}", f"--data={place / 'shown.jsonl'}", f"--out={place / 'finetune'}"),
        *(f"--train.seed={seed}", "--train.device=cpu", *(f"--optimizer.{rate}" for rate in rates)),
    )
    finetune(from_arguments(FinetuneConfig, [*settings, *options]))
    return place / "finetune"


def over_seeds(
    description: str | None,
    run: Callable[[Path, int, list[str]], Figures],
    extremes: Callable[[Sequence[Figures]], Figures],
    met: Callable[[Figures], Mapping[str, bool]],
) -> None:
    """`run` in a folder of its own for each seed of the command line, with the options that it leaves over; then the
    extremes of all, and which claims they meet, as JSON. Ends the process, with 1 when one is not met."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run of each")
    parser.add_argument("--json", action="store_true", help="print only one JSON object")
    arguments, options = parser.parse_known_args()
    found: list[Figures] = []
    with tempfile.TemporaryDirectory() as temporary:
        for seed in arguments.seeds:
            place = Path(temporary) / str(seed)
            place.mkdir()
            found.append({"seed": seed, **run(place, seed, options)})
            if not arguments.json:
                print(found[-1], flush=True)
    figures: Figures = {key: [seed[key] for seed in found] for key in ("before", "after", "seconds")}
    figures |= {"runs": len(found), "most_seconds": max(figures["seconds"]), **extremes(found)}
    figures |= {"seeds": found, "machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    claims = met(figures)
    print(json.dumps({**figures, "met": claims}))
    sys.exit(not all(claims.values()))
