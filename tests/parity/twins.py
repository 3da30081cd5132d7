"""A policy and its reference, each twice: as a model of ours and as one of transformers with the same weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from seedbed.model.transformer import Transformer
from seedbed.tokenizers import bytes as byte_tokenizer
from tests.random_models import random_model, saved


@dataclass(frozen=True)
class Twins:
    """Ours, theirs: in fp64, and neither drops anything out."""

    ours: Transformer
    theirs: PreTrainedModel


def make_twins(place: Path, seed: int) -> tuple[Twins, PreTrainedTokenizerBase]:
    """Both, and the tokenizer as transformers reads it."""
    tokenizer = byte_tokenizer.build()
    model = random_model(seed, tokenizer=tokenizer)
    with torch.no_grad():
        model.head_weight[list(tokenizer.end_ids)] *= 3  # so that some of its answers end
    folder = saved(place, model, tokenizer)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    # A random policy says the token that pads like any other, and transformers keeps its embedding from learning.
    theirs.get_input_embeddings().padding_idx = None
    return Twins(model.double(), theirs), AutoTokenizer.from_pretrained(folder)


def gradient_norm(model: torch.nn.Module, loss: torch.Tensor) -> float:
    """Of all weights together."""
    model.zero_grad()
    loss.backward()
    return float(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm())
