"""A model in the form that an engine is fast with."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import torch

from seedbed.errors import ConfigError
from seedbed.inference.config import WEIGHTS
from seedbed.model.adapters.folder import tell_other_base
from seedbed.model.folder import adapted, find_model, load_model
from seedbed.model.linears.layers import quantise, storages
from seedbed.model.linears.storage import describe
from seedbed.model.packed.pack import pack
from seedbed.model.transformer import Transformer
from seedbed.tokenizers.tokenizer import Tokenizer


def load_packed(
    path: Path,
    device: str | torch.device,
    dtype: str | torch.dtype | None,
    weights: str,
    *,
    merge: str | Path | None = None,
    is_draft: bool = False,
) -> tuple[Transformer, Tokenizer]:
    """As `load_model` does, packed for speed, its layers in 8-bit whole numbers where `weights` is int8. `merge`: an
    adapter's folder that becomes part of the model. A draft that is quantized already is taken as it is."""
    if weights not in get_args(WEIGHTS):
        raise ConfigError(f"weights must be one of {', '.join(get_args(WEIGHTS))}, got {weights!r}")
    model, tokenizer = load_model(path, device=device, dtype=dtype)
    if merge is not None:
        folder = find_model(Path(merge))
        model, tokenizer = adapted(folder, model, tokenizer)
        tell_other_base(folder, find_model(path))
    stored = storages(model)
    if weights == "int8" and not (is_draft and stored):
        if stored:
            raise ConfigError(f"{path} is quantized already ({describe(stored)})", "Leave --weights out.")
        if model.device.type != "cpu":
            raise ConfigError("weights int8 needs a CPU", "Give --device cpu, or leave it out.")
        model = quantise(model.float())
    return pack(model), tokenizer
