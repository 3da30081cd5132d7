"""The one model: it trains, aligns, generates and serves.

- residual blocks of attention and feed-forward, whose norms stand before, after, or on both sides of them
- positions in the embeddings, in the attention, or nowhere
- head tied to the embedding or its own
- projections back into the residual stream begin at zero, so that a fresh block is the identity and depth costs nothing
  at the start (Zhang et al. 2019, arXiv:1901.09321), or at 1/√(2·layers) of other matrices (Radford et al. 2019, §2.3)

Shape suffixes: B batch, T positions, D model width, V vocabulary, E key/value heads × head width.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from seedbed.errors import ConfigError
from seedbed.model.attention import Attention
from seedbed.model.attention_paths.choice import choose
from seedbed.model.attention_paths.path import Attend, Heads
from seedbed.model.cache import PagedCache, PagedLayer, Places
from seedbed.model.config import ModelConfig
from seedbed.model.convolution import ATTENTION, FEEDFORWARD, build_convolution
from seedbed.model.cross_entropy import Scores
from seedbed.model.experts import Router, Stack, build_experts
from seedbed.model.feedforward import build_feedforward
from seedbed.model.linears.linear import Linear, linear
from seedbed.model.masks import AttentionMask
from seedbed.model.norms import build_norm
from seedbed.model.positions import Angles, build_positions
from seedbed.model.recipes import Recipes, remade
from seedbed.model.skips import build_skips, build_value_embeddings

if TYPE_CHECKING:
    from seedbed.model.adapters.adapter import Adapter


class Block(nn.Module):
    """Attention, then feed-forward, each added to the residual stream; norms before them (Xiong et al. 2020,
    arXiv:2002.04745), and in a sandwich after them too, so that no block adds more than the others (Ding et al. 2021,
    arXiv:2105.13290, §2.4; Gemma 2)."""

    def __init__(self, config: ModelConfig, layer: int = 0):
        super().__init__()
        self.attention_norm = build_norm(config.width, config)
        self.attention_convolution = build_convolution(config, ATTENTION)
        self.attention = Attention(config, layer)
        self.feedforward_norm = build_norm(config.width, config)
        self.feedforward_convolution = build_convolution(config, FEEDFORWARD)
        self.feedforward = build_experts(config) if config.has_experts(layer) else build_feedforward(config)
        self.dropout = nn.Dropout(config.dropout)
        exits = config.norm_place == "sandwich"
        self.attention_exit_norm = build_norm(config.width, config) if exits else nn.Identity()
        self.feedforward_exit_norm = build_norm(config.width, config) if exits else nn.Identity()

    def forward(
        self,
        x_BTD: Tensor,
        angles: Angles | None,
        attend: Attend,
        cache: PagedLayer | None,
        values_BTE: Tensor | None = None,
        positions_BT: Tensor | None = None,
    ) -> Tensor:
        def attention(read_BTD: Tensor) -> Tensor:
            read_BTD = self.attention_convolution(read_BTD, positions_BT, cache)
            return self.attention_exit_norm(self.attention(read_BTD, angles, attend, values_BTE))

        def feedforward(read_BTD: Tensor) -> Tensor:
            read_BTD = self.feedforward_convolution(read_BTD, positions_BT, cache)
            return self.feedforward_exit_norm(self.feedforward(read_BTD))

        x_BTD = self.added(x_BTD, self.attention_norm, attention)
        return self.added(x_BTD, self.feedforward_norm, feedforward)

    def added(self, x_BTD: Tensor, norm: nn.Module, part: Callable[[Tensor], Tensor]) -> Tensor:
        """The residual stream after one of its parts."""
        return x_BTD + self.dropout(part(remade(norm, x_BTD)))


class PostNormBlock(Block):
    """The residual stream itself is normalised after each addition (Vaswani et al. 2017, arXiv:1706.03762, §3.1)."""

    def added(self, x_BTD: Tensor, norm: nn.Module, part: Callable[[Tensor], Tensor]) -> Tensor:
        x_BTD = x_BTD + self.dropout(part(x_BTD))
        if norm is self.attention_norm:
            return remade(norm, x_BTD)
        # No recipe: the next block would make it with this one's weights, which FSDP2 has taken away by then.
        return self.feedforward_norm(x_BTD)


BLOCKS = {"pre": Block, "post": PostNormBlock, "sandwich": Block}


class Head(Linear):
    """From the residual stream to the vocabulary, or to one number."""

    parameter_kind = "head"
    """Its own rate, which `optim.groups` reads here."""


class SoftCap(nn.Module):
    """Logits bent into (−cap, cap), the small ones left as they are (Gemma 2: Riviere et al. 2024, arXiv:2408.00118,
    §2)."""

    def __init__(self, cap: float):
        super().__init__()
        self.cap = cap

    def forward(self, logits: Tensor) -> Tensor:
        return self.cap * torch.tanh(logits / self.cap)


class Transformer(nn.Module):
    """Token ids in, logits of the next token out."""

    def __init__(self, config: ModelConfig, layers: Sequence[int] | None = None):
        """Weights are drawn from torch's global generator: seed it first for a model that can be made again. `layers`:
        numbers of the blocks to build, where not all are wanted."""
        super().__init__()
        self.config = config = config.resolve()
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.positions = build_positions(config)
        self.dropout = nn.Dropout(config.dropout)
        layers = range(config.layers) if layers is None else layers
        self.skips = build_skips(config, layers)
        self.value_embeddings = build_value_embeddings(config, layers)
        self.blocks = nn.ModuleList(BLOCKS[config.norm_place](config, layer) for layer in layers)
        # After post-norm blocks the residual stream is normalised already.
        self.final_norm = nn.Identity() if config.norm_place == "post" else build_norm(config.width, config)
        own_head = config.head != "score" and not config.tied
        self.head: nn.Module | None = Head(config.width, config.vocab_size, bias=False) if own_head else None
        self.score: nn.Module | None = None if config.head == "tokens" else Head(config.width, 1, bias=False)
        self.softcap = nn.Identity() if config.logit_softcap is None else SoftCap(config.logit_softcap)
        self.attention_path = "auto"
        self.adapter: Adapter | None = None
        """What it wears and learns while its own weights rest."""
        self.initialise()

    @classmethod
    def of_weights(cls, config: ModelConfig, weights: Mapping[str, Tensor]) -> Transformer:
        """The model whose weights are these very tensors, by name. No number is drawn."""
        with torch.device("meta"):  # drawing first weights would cost time, and move the generator
            model = cls(config)
        model.load_state_dict(weights, assign=True)
        return model

    def attend_by(self, path: str) -> None:
        """Computes attention by the named way from now on: auto, reference, sdpa, flex or flash."""
        self.attention_path = path

    def initialise(self) -> None:
        """Fresh weights: embeddings as wide as the config says, matrices by `initial_std` or their input width, biases
        and gates zero, and so what writes into the residual stream and an own head, unless the config says otherwise.
        """
        config = self.config
        own_share = 0.0 if config.zero_projections else 1.0
        shares = {  # of the spread of other matrices
            "attention.output": own_share * (2 * config.layers) ** -0.5,
            "feedforward.down": own_share * (2 * config.layers) ** -0.5,
            "feedforward.shared.down": own_share * (2 * config.layers) ** -0.5,
            "value_gate.gate": 0.0,
            "head": own_share,
            "score": own_share,
        }
        for name, module in self.named_modules():
            if isinstance(module, nn.Embedding):
                of_values = name.startswith("value_embeddings.")
                spread = (config.initial_std or config.width**-0.5) if of_values else config.embedding_std
                nn.init.normal_(module.weight, std=spread)
            elif isinstance(module, nn.Linear | Stack | Router):
                share = next((share for end, share in shares.items() if name.endswith(end)), 1.0)
                nn.init.normal_(module.weight, std=share * (config.initial_std or module.weight.shape[-1] ** -0.5))
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)

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
        left out, a row is one document. The first `prefix_B` positions of a row are read by all of it.
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
        x_BTD = self.positions.place(self.embedding(tokens_BT), length, positions_BT)
        return self._run(tokens_BT, x_BTD, angles, self.attends(mask), positions_BT, [None] * len(self.blocks))

    def step(self, tokens_N: Tensor, places: Places, cache: PagedCache) -> Tensor:
        """Normed residual stream (N, D) of new tokens of several sequences that read, and join, what `cache` holds.

        ConfigError when the model reads both ways: each new token would change what it made of those before.
        """
        if not self.config.causal:
            raise ConfigError("the model reads both ways (model.causal is false): it cannot go on with a text")
        tokens_1N, positions_1N = tokens_N[None], places.positions_N[None].long()
        angles = self.positions.angles(places.seen, positions_1N, device=tokens_N.device)
        x_1ND = self.positions.place(self.embedding(tokens_1N), places.seen, positions_1N)
        layers = cache.layers(places)
        return self._run(tokens_1N, x_1ND, angles, layers, positions_1N, layers)[0]

    def _run(
        self,
        tokens_BT: Tensor,
        embedding_BTD: Tensor,
        angles: Angles | None,
        attends: Sequence[Attend],
        positions_BT: Tensor | None,
        caches: Sequence[PagedLayer | None],
    ) -> Tensor:
        x_BTD = embedding_BTD = self.dropout(embedding_BTD)
        layers = zip(self.blocks, self.skips, self.value_embeddings, attends, caches, strict=True)
        with Recipes():
            for block, skip, values, attend, cache in layers:
                x_BTD = block(skip(x_BTD, embedding_BTD), angles, attend, cache, values(tokens_BT), positions_BT)
        return self.final_norm(x_BTD)

    def attends(self, mask: AttentionMask) -> list[Attend]:
        """What computes attention in each layer; made once for all layers that see the same."""
        heads = Heads.of(self.config, self.device, self.dtype, training=self.training)
        masks = mask.of_layers(self.config)
        made = {layer: choose(self.attention_path, layer, heads) for layer in dict.fromkeys(masks)}
        return [made[layer] for layer in masks]

    def value(self, x_BTD: Tensor) -> Tensor:
        """What a score head gives (…) for normed residual vectors (…, D)."""
        assert self.score is not None  # the config's head is score
        value_BT: Tensor = self.score(x_BTD).squeeze(-1)
        return value_BT

    def logits(self, x_BTD: Tensor) -> Tensor:
        """Scores (…, V) over the vocabulary of normed residual vectors (…, D)."""
        return self.softcap(linear(x_BTD, self.embedding.weight) if self.head is None else self.head(x_BTD))

    @property
    def device(self) -> torch.device:
        """Where its weights lie."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights that are no whole numbers; where there are none, fp32, which it then computes in."""
        return next((weight.dtype for weight in self.parameters()), torch.float32)

    @property
    def moving(self) -> dict[str, nn.Parameter]:
        """The weights, by name, that training may move: all, or, while it wears an adapter, the adapter's."""
        return {name: p for name, p in self.named_parameters() if self.adapter is None or p.requires_grad}

    @property
    def virtual_ids(self) -> list[int]:
        """What is put before the ids of each text: tokens beyond the vocabulary, where it wears such as are learned."""
        return [] if self.adapter is None else self.adapter.virtual_ids(self.config)

    @property
    def scores(self) -> Scores:
        """How hidden states become a loss, for `summed_cross_entropy` and the like."""
        return Scores(self.config.logit_softcap)

    @property
    def head_weight(self) -> Tensor:
        """The matrix (V, D) of the head, which is the embedding when they are tied."""
        layer = self.embedding if self.config.tied or self.head is None else self.head
        weight = layer.weight
        assert isinstance(weight, Tensor)  # of an nn.Module it may be anything
        return weight


def weight_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every weight of a resolved config, by name, without a byte of them."""
    kinds: dict[tuple[bool, ...], list[int]] = {}
    for layer in range(config.layers):
        kinds.setdefault((config.has_value_embedding(layer), config.has_experts(layer)), []).append(layer)
    alike = list(kinds.values())
    with torch.device("meta"):
        weights = Transformer(config, [layers[0] for layers in alike]).named_parameters()
    shapes: dict[str, tuple[int, ...]] = {}
    for name, weight in weights:
        room, _, inside = name.partition(".")
        number, _, inside = inside.partition(".")
        names = [f"{room}.{layer}.{inside}" for layer in alike[int(number)]] if number.isdigit() else [name]
        shapes |= dict.fromkeys(names, tuple(weight.shape))
    return shapes
