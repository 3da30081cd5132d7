"""Models small enough for a test, with random weights everywhere: also where a fresh model begins at zero or one."""

from __future__ import annotations

from pathlib import Path

import torch

from seedbed.model.config import ModelConfig
from seedbed.model.folder import save_model
from seedbed.model.transformer import Transformer
from seedbed.tokenizers.tokenizer import Tokenizer

GQA = {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "head_width": 8, "ff_width": 48, "context": 64}
"""Two query heads share each key/value head."""


def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Every parameter is drawn anew: matrices by their fan-in, norm weights around 1, biases around 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
            vector = 0.2 * noise if name.endswith("bias") else 1 + 0.2 * noise
            parameter.copy_(vector if parameter.ndim == 1 else noise * parameter.shape[-1] ** -0.5)


def random_model(seed: int = 0, *, tokenizer: Tokenizer | None = None, **config) -> Transformer:
    """A model of the shape GQA, unless `config` says otherwise; the vocabulary is the tokenizer's, else 50."""
    if tokenizer is None:
        model = Transformer(ModelConfig(**{"vocab_size": 50, **GQA, **config}))
    else:
        model = Transformer(ModelConfig(**{**GQA, **config}).with_tokenizer(tokenizer))
    randomise(model, seed)
    return model.eval()


def saved(folder: Path, model: Transformer, tokenizer: Tokenizer) -> Path:
    """The model folder, without lineage."""
    save_model(folder, model, tokenizer, inputs={}, card={"What it is": "a test's"})
    return folder
