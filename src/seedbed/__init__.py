"""seedbed grows a language model from raw text to an aligned, served chat model.

From Python: `seedbed.load("runs/demo/finetune").generate("Once upon a time")`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seedbed.inference.config import EngineConfig
    from seedbed.inference.engine import Engine

__version__ = "0.1.0"

# torch reads it when it first takes memory: huge pages, where Linux has them, make a training step a tenth faster.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def load(
    path: str | Path,
    *,
    device: str = "auto",
    dtype: str | None = None,
    weights: str = "stored",
    adapters: Mapping[str, str | Path] | None = None,
    draft: str | Path | None = None,
    config: EngineConfig | None = None,
) -> Engine:
    """The model of a model folder (ours or one of transformers), a run or a checkpoint, ready to `generate`, `chat` and
    `stream`.

    `dtype` is "float32", "bfloat16", "float16" or "float64"; left out, the one that the weights are stored in.
    `weights` "int8" rounds the layers to 8-bit whole numbers: a fourth as large, and faster on a CPU, which they need.
    `adapters`: folders of LoRA adapters in peft's file format, by names: `generate("Once", adapter="formal")`.
    `draft` guesses tokens ahead, which are checked together: "lookup", "ngram", or the folder of a smaller model.
    `config`: how many are answered at once, and what is kept of them.
    """
    from seedbed.devices import choose_device
    from seedbed.inference.engine import Engine

    return Engine.load(
        path,
        device=choose_device(device),
        dtype=dtype,
        weights=weights,
        adapters=adapters,
        draft=draft,
        config=config,
    )
