"""Answers of a model that learns: the engine over its weights as they are at this moment.

Whoever asks at a step of training takes an engine for that step alone: keys and values of earlier weights end with it.
An answer is a function of the weights, its prompt, its sampling and its seed; so seeds that follow from places in a run
make it a function of the weights and of those places, and nobody need keep it for a run that goes on from a checkpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from seedbed.inference.config import EngineConfig
from seedbed.inference.engine import Engine
from seedbed.model.cache import BLOCK
from seedbed.model.transformer import Transformer
from seedbed.tokenizers.tokenizer import Tokenizer


@contextmanager
def live_engine(learner: Transformer, tokenizer: Tokenizer, *, rows: int, longest: int) -> Iterator[Engine]:
    """An engine over the learner's weights, which makes `rows` answers at once, each with its prompt of at most
    `longest` tokens. Afterwards the model is in the mode that it was in."""
    training = learner.training
    blocks = -(-longest // BLOCK) * rows
    config = EngineConfig(rows=rows, step_tokens=max(512, 4 * rows), cache_tokens=blocks * BLOCK, cache="model")
    try:
        with torch.no_grad():
            yield Engine(learner, tokenizer, config)
    finally:
        learner.train(training)


def seed_of(place: str) -> int:
    """What is drawn at a place of a run is drawn by this seed: 63 bits that follow from its name."""
    return int.from_bytes(hashlib.sha256(place.encode()).digest()[:8], "big") >> 1
