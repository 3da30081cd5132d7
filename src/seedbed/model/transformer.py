"""The one model: it trains, aligns, generates and serves.

- pre-norm residual blocks with RMSNorm
- rotary positions, grouped-query attention, per-head QK-norm
- SwiGLU, no bias anywhere
- head tied to the embedding or its own
- projections back into the residual stream begin at zero, so that a fresh block is the identity and depth costs nothing
  at the start (Zhang et al. 2019, arXiv:1901.09321; GPT-2's 1/√depth is the milder form)

Shape suffixes: B batch, T positions, D model width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seedbed.errors import ConfigError
from seedbed.model.attention import Attention
from seedbed.model.attention_paths.choice import choose
from seedbed.model.attention_paths.path import Attend, Heads
from seedbed.model.cache import KVCache, LayerCache
from seedbed.model.config import ModelConfig
from seedbed.model.feedforward import FeedForward
from seedbed.model.masks import AttentionMask
from seedbed.model.norms import RMSNorm
from seedbed.model.positions import Angles, RotaryPositions


class Block(nn.Module):
    """Attention, then feed-forward, each added to the residual stream."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.attention_norm = RMSNorm(config.width, config.norm_epsilon)
        self.attention = Attention(config)
        self.feedforward_norm = RMSNorm(config.width, config.norm_epsilon)
        self.feedforward = FeedForward(config)

    def forward(self, x_BTD: Tensor, angles: Angles, attend: Attend, cache: LayerCache | None) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), angles, attend, cache)
        return x_BTD + self.feedforward(self.feedforward_norm(x_BTD))


class Head(nn.Linear):
    """From the residual stream to the vocabulary."""

    parameter_kind = "head"
    """Its own rate, which `optim.groups` reads here."""


class Transformer(nn.Module):
    """Token ids in, logits of the next token out."""

    def __init__(self, config: ModelConfig):
        """Weights are drawn from torch's global generator: seed it first for a model that can be made again."""
        super().__init__()
        self.config = config = config.resolve()
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.positions = RotaryPositions(config.head_width, config.rope_base)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.final_norm = RMSNorm(config.width, config.norm_epsilon)
        self.head = None if config.tied else Head(config.width, config.vocab_size, bias=False)
        self.attention_path = "auto"
        self.initialise()

    def attend_by(self, path: str) -> None:
        """Computes attention by the named way from now on: auto, reference, sdpa, flex or flash."""
        self.attention_path = path

    def initialise(self) -> None:
        """Fresh weights: fan-in scaled matrices, zero for what writes into the residual stream and for an own head."""
        nn.init.normal_(self.embedding.weight, std=self.config.embedding_std)
        for name, matrix in self.blocks.named_parameters():
            if matrix.ndim == 2:
                writes_residual = name.endswith(("attention.output.weight", "feedforward.down.weight"))
                nn.init.normal_(matrix, std=0.0 if writes_residual else matrix.shape[1] ** -0.5)
        if self.head is not None:
            nn.init.zeros_(self.head.weight)

    def forward(self, tokens_BT: Tensor, **where: Tensor | None) -> Tensor:
        """Logits (B, T, V) of the token that follows each position. Keywords as in `hidden`."""
        return self.logits(self.hidden(tokens_BT, **where))

    def hidden(
        self,
        tokens_BT: Tensor,
        *,
        segments_BT: Tensor | None = None,
        positions_BT: Tensor | None = None,
        prefix_B: Tensor | None = None,
    ) -> Tensor:
        """Normed residual stream (B, T, D) of whole sequences.

        `segments_BT` numbers the documents of packed rows (−1: padding), `positions_BT` restarts at 0 in each of them;
        left out, a row is one document. All positions of a row read its first `prefix_B`, also those before them.
        """
        rows, length = tokens_BT.shape
        mask = AttentionMask(
            rows=rows,
            queries=length,
            keys=length,
            device=tokens_BT.device,
            segments_BT=segments_BT,
            positions_BT=positions_BT,
            prefix_B=prefix_B,
        )
        angles = self.positions.angles(length, positions_BT, device=tokens_BT.device)
        return self.run(tokens_BT, angles, mask, [None] * len(self.blocks))

    def extend(self, tokens_BT: Tensor, positions_BT: Tensor, cache: KVCache, seen: int) -> Tensor:
        """Normed residual stream (B, T, D) of new tokens that read, and join, what `cache` holds.

        `seen` is one more than the largest position of the batch; no position is ≥ it. ConfigError when the model
        reads both ways: what it made of the tokens before would change with each new one.
        """
        if not self.config.causal:
            raise ConfigError("this model reads both ways (model.causal is false): it cannot go on with a text")
        angles = self.positions.angles(seen, positions_BT, device=tokens_BT.device)
        mask = AttentionMask.up_to(positions_BT, seen)
        return self.run(tokens_BT, angles, mask, cache.layers(positions_BT, seen))

    def run(
        self, tokens_BT: Tensor, angles: Angles, mask: AttentionMask, caches: list[LayerCache] | list[None]
    ) -> Tensor:
        x_BTD = self.embedding(tokens_BT)
        for block, attend, cache in zip(self.blocks, self.attends(mask), caches, strict=True):
            x_BTD = block(x_BTD, angles, attend, cache)
        return self.final_norm(x_BTD)

    def attends(self, mask: AttentionMask) -> list[Attend]:
        """What computes attention in each layer; made once for all layers that see the same."""
        heads = Heads.of(self.config, self.embedding.weight, training=self.training)
        masks = mask.of_layers(self.config)
        made = {layer: choose(self.attention_path, layer, heads) for layer in dict.fromkeys(masks)}
        return [made[layer] for layer in masks]

    def logits(self, x_BTD: Tensor) -> Tensor:
        """Scores (…, V) over the vocabulary of normed residual vectors (…, D)."""
        return F.linear(x_BTD, self.embedding.weight if self.head is None else self.head.weight)


def weight_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every weight of a resolved config, by name, without a byte of them."""
    with torch.device("meta"):
        thin = Transformer(replace(config, layers=1))
    shapes: dict[str, tuple[int, ...]] = {}
    for name, weight in thin.named_parameters():
        inside = name.removeprefix("blocks.0.")
        names = [name] if inside == name else [f"blocks.{number}.{inside}" for number in range(config.layers)]
        shapes |= dict.fromkeys(names, tuple(weight.shape))
    return shapes
