"""A model with the adapter of a folder."""

from __future__ import annotations

from pathlib import Path

import torch

from seedbed.errors import ConfigError, DataError
from seedbed.model.adapters.bottleneck import BottleneckAdapter, learned, read_bottleneck
from seedbed.model.adapters.changes import fold
from seedbed.model.adapters.config import BottleneckConfig
from seedbed.model.adapters.folder import read_changes, read_score, stored_adapter, weights_file
from seedbed.model.adapters.peft_config import CONFIG, Ia3File, LoraFile, read_config
from seedbed.model.adapters.prompts import read_prompted
from seedbed.model.score_head import with_score_head
from seedbed.model.transformer import Transformer
from seedbed.model.weights import check_shapes, one_dtype, read_weights
from seedbed.runs import read_json

ROWS = "prompt_embeddings"
"""What is learned before texts, in peft's files."""


def put_on(folder: Path, model: Transformer) -> Transformer:
    """A model with the adapter of a folder: merged into it where that can be, else worn, and resting; under its score
    head, where it has one. DataError, in one line, for one that does not fit; CorruptionError for a broken file."""
    try:
        score_1D, model = read_score(folder, model.config), _put_on(folder, model)
        return model if score_1D is None else with_score_head(model, score_1D)
    except ConfigError as error:
        raise DataError(f"{folder}: {error.problem}") from error


def _put_on(folder: Path, model: Transformer) -> Transformer:
    config = read_config(folder)
    if isinstance(config, LoraFile | Ia3File):
        return fold(model, read_changes(folder, model.config))
    file = weights_file(folder)
    stored, base = stored_adapter(file), model.config
    found = {name: tensor.shape for name, tensor in stored.items()}
    if isinstance(config, BottleneckConfig):
        with torch.device("meta"):
            like = BottleneckAdapter(config, folder).put_on(Transformer(base))
        check_shapes({name: tuple(weight.shape) for name, weight in learned(like).items()}, found, file)
        one_dtype(folder, stored)
        return read_bottleneck(config, read_weights(stored), folder, model)
    peft_type = str(read_json(folder / CONFIG)["peft_type"])
    width = 2 * base.layers * base.kv_heads * base.head_width if peft_type == "PREFIX_TUNING" else base.width
    check_shapes({ROWS: (config.num_virtual_tokens, width)}, found, file)
    one_dtype(folder, stored)
    return read_prompted(peft_type, read_weights(stored)[ROWS], folder, model)
