"""Tokens of no text, which stand before every text and are learned while the model rests.

They are ids beyond the vocabulary, so that rows, positions, masks and the cache know nothing of them: who encodes a
text puts `virtual_ids` before it. Prompt tuning learns what they look up (Lester et al. 2021, arXiv:2104.08691),
P-tuning makes that by a small network (Liu et al. 2021, arXiv:2103.10385). Prefix tuning learns their keys and values
in every layer (Li & Liang 2021, arXiv:2101.00190; without a network it is P-tuning v2: Liu et al. 2022,
arXiv:2110.07602).

Shape suffixes: P virtual tokens, B batch, T positions, D model width, H query heads, G key/value heads, K head width, L
layers, C hidden width of the network, W width of what is learned for each token.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seedbed.errors import ConfigError
from seedbed.model.adapters.adapter import Adapter, Files
from seedbed.model.adapters.config import PromptsConfig
from seedbed.model.adapters.writing import common
from seedbed.model.attention_paths.path import Attend
from seedbed.model.config import ModelConfig
from seedbed.model.positions import Angles
from seedbed.model.transformer import Transformer

SPREAD = 0.02
"""Of the first keys and values of a prefix."""


class Rows(nn.Module):
    """What is learned for each virtual token (P, W)."""

    parameter_kind = "adapter"

    def __init__(self, rows_PW: Tensor):
        super().__init__()
        self.rows = nn.Parameter(rows_PW)

    def forward(self) -> Tensor:
        return self.rows


class Network(Rows):
    """The same, made by a network, which learns with it. It is left behind when all is learned."""

    def __init__(self, rows_PD: Tensor, network: nn.Module):
        super().__init__(rows_PD)
        self.network = network.to(rows_PD)

    def forward(self) -> Tensor:
        made_PW: Tensor = self.network(self.rows)
        return made_PW


class _Dense(nn.Linear):
    parameter_kind = "adapter"

    def __init__(self, inputs: int, outputs: int, chance: torch.Generator):
        super().__init__(inputs, outputs, device="meta")
        _begin(self, inputs, chance)


class _Recurrence(nn.LSTM):
    """Two layers, each of which reads the virtual tokens from the first and from the last (P, D) to (P, 2·C)."""

    parameter_kind = "adapter"

    def __init__(self, inputs: int, hidden: int, chance: torch.Generator):
        super().__init__(inputs, hidden, num_layers=2, bidirectional=True, device="meta")
        _begin(self, hidden, chance)

    # What torch gives is a pair, whose second half is the state at the end: of no use in a row of layers.
    def forward(self, rows_PD: Tensor) -> Tensor:  # type: ignore[override]
        read_PE: Tensor = super().forward(rows_PD)[0]
        return read_PE


def _begin(module: nn.Module, inputs: int, chance: torch.Generator) -> None:
    """As torch begins such a layer, by a generator of its own."""
    module.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-(inputs**-0.5), inputs**-0.5, generator=chance)


def dense(sizes: Sequence[int], squash: type[nn.Module], chance: torch.Generator) -> list[nn.Module]:
    """Dense layers from size to size, with something between each two."""
    layers = [_Dense(i, o, chance) for i, o in itertools.pairwise(sizes)]
    return [layers[0], *(part for layer in layers[1:] for part in (squash(), layer))]


@dataclass
class Here:
    """What all layers look at."""

    places_BT: Tensor | None = None
    """In the pass that is made just now: which virtual token stands at each position; −1: none."""


class PromptedEmbedding(nn.Module):
    """A table that rests, and rows for the ids beyond it. Under a prefix those are of no consequence."""

    def __init__(self, table: nn.Module, vocabulary: int, prompt: Rows | None, here: Here):
        super().__init__()
        self.table, self.vocabulary, self.prompt, self.here = table, vocabulary, prompt, here

    @property
    def weight(self) -> Tensor:
        """Of the table."""
        weight = self.table.weight
        assert isinstance(weight, Tensor)
        return weight

    def forward(self, tokens_BT: Tensor) -> Tensor:
        self.here.places_BT = places_BT = (tokens_BT - self.vocabulary).clamp(min=-1)
        x_BTD: Tensor = self.table(tokens_BT.clamp(max=self.vocabulary - 1))
        if self.prompt is None:
            return x_BTD
        return torch.where((places_BT >= 0)[..., None], self.prompt()[places_BT.clamp(min=0)].to(x_BTD.dtype), x_BTD)


class PrefixedAttention(nn.Module):
    """Attention in which keys and values at virtual tokens are learned, as they are, without norm and rotation."""

    def __init__(self, attention: nn.Module, prefix: Rows, layer: int, heads: int, here: Here):
        super().__init__()
        self.attention, self.prefix, self.layer, self.heads, self.here = attention, prefix, layer, heads, here

    def forward(self, x_BTD: Tensor, angles: Angles | None, attend: Attend, values_BTE: Tensor | None = None) -> Tensor:
        prefix_PLGK = self.prefix().unflatten(1, (-1, self.heads, self.head_width(x_BTD)))
        keys_PGK, values_PGK = prefix_PLGK[:, 2 * self.layer], prefix_PLGK[:, 2 * self.layer + 1]

        def attend_with_prefix(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor) -> Tensor:
            return attend(q_BHTK, self.put(keys_PGK, k_BGTK), self.put(values_PGK, v_BGTK))

        out_BTD: Tensor = self.attention(x_BTD, angles, attend_with_prefix, values_BTE)
        return out_BTD

    def head_width(self, x_BTD: Tensor) -> int:
        """Of keys and values."""
        width = self.attention.head_width
        assert isinstance(width, int)
        return width

    def put(self, rows_PGK: Tensor, x_BGTK: Tensor) -> Tensor:
        """The learned ones in the places of virtual tokens."""
        places_BT = self.here.places_BT
        assert places_BT is not None
        learned_BGTK = rows_PGK[places_BT.clamp(min=0)].transpose(1, 2).to(x_BGTK.dtype)
        return torch.where((places_BT >= 0)[:, None, :, None], learned_BGTK, x_BGTK)


class Prompted(Adapter):
    """One that stands before every text."""

    method = "prompt"
    place = "embedding.prompt.rows"
    """Name of what is learned, without a network, in a model that wears it."""

    def __init__(self, config: PromptsConfig, base: Path, seed: int = 0, *, network: bool = False):
        """`network`: what is learned is made by one."""
        super().__init__(base, seed)
        self.config, self.network = config, network
        if network and self.method == "prompt":
            self.method = "p_tuning"

    def fit(self, model: Transformer, chance: torch.Generator) -> None:
        config, tokens = model.config, self.config.tokens
        if any(map(config.has_value_embedding, range(config.layers))):
            raise ConfigError("the model has value embeddings, in which virtual tokens have no rows")
        if tokens + 1 >= config.context:
            raise ConfigError(
                f"prompts.tokens is {tokens}, but the model reads {config.context:,} at once", "Give fewer."
            )
        self.here = Here()
        self.rows = self.build(model, chance)
        vocabulary = config.vocab_size
        model.embedding = PromptedEmbedding(model.embedding, vocabulary, self.of_embedding(), self.here)  # type: ignore[assignment]

    def build(self, model: Transformer, chance: torch.Generator) -> Rows:
        """What is learned, as it begins: rows of the table, for it has learned what rows are of use."""
        config = self.config
        vocabulary, width = model.config.vocab_size, model.config.width
        ids = torch.randint(vocabulary, (config.tokens,), generator=chance)
        with torch.no_grad():
            first_PD = model.embedding(ids.to(model.device)).clone()
        if not self.network:
            return Rows(first_PD)
        hidden = config.hidden or width
        if config.encoder == "mlp":
            return Network(first_PD, nn.Sequential(*dense((width, hidden, hidden, width), nn.ReLU, chance)))
        # Liu et al. 2021, §3.2: what stands at one place depends on the others.
        both = [_Recurrence(width, hidden, chance), *dense((2 * hidden, 2 * hidden, width), nn.ReLU, chance)]
        return Network(first_PD, nn.Sequential(*both))

    def of_embedding(self) -> Rows | None:
        """What is looked up for virtual tokens; None where that is of no consequence."""
        return self.rows

    def virtual_ids(self, config: ModelConfig) -> list[int]:
        """What is put before the ids of a text."""
        return list(range(config.vocab_size, config.vocab_size + self.config.tokens))

    def files(self, model: Transformer) -> Files:
        config = model.config
        values = common(self.peft_type, self.base) | {
            "num_virtual_tokens": self.config.tokens,
            "num_transformer_submodules": 1,
            "num_layers": config.layers,
            **self.sizes(config),
        }
        return values, {"prompt_embeddings": self.rows().detach()}

    @property
    def peft_type(self) -> str:
        """Its name in peft's files."""
        return "P_TUNING" if self.network else "PROMPT_TUNING"

    def sizes(self, config: ModelConfig) -> dict[str, Any]:
        """Of what is learned, as peft's config has them."""
        found: dict[str, Any] = {"token_dim": config.width, "num_attention_heads": config.heads}
        if self.network:
            found["encoder_hidden_size"] = self.config.hidden or config.width
            found["encoder_reparameterization_type"] = self.config.encoder.upper()
        return found

    @contextlib.contextmanager
    def off(self, model: Transformer) -> Iterator[None]:
        """ConfigError: the tokens stay where they are."""
        raise ConfigError(f"what the method {self.method} learns stands in the text and cannot be taken off")
        yield


class Prefixed(Prompted):
    """A prefix of keys and values in every layer."""

    method = "prefix"
    place = "blocks.0.attention.prefix.rows"
    peft_type = "PREFIX_TUNING"

    def fit(self, model: Transformer, chance: torch.Generator) -> None:
        super().fit(model, chance)
        for number, block in enumerate(model.blocks):
            wrapped = PrefixedAttention(
                block.get_submodule("attention"), self.rows, number, model.config.kv_heads, self.here
            )
            setattr(block, "attention", wrapped)  # noqa: B010 (a module of another class)

    def build(self, model: Transformer, chance: torch.Generator) -> Rows:
        config, tokens = model.config, self.config.tokens
        width = 2 * config.layers * config.kv_heads * config.head_width
        if not self.network:
            return Rows(SPREAD * torch.randn(tokens, width, generator=chance).to(model.device))
        first_PD = torch.randn(tokens, config.width, generator=chance).to(model.device)
        sizes = (config.width, self.config.hidden or config.width, width)
        return Network(first_PD, nn.Sequential(*dense(sizes, nn.Tanh, chance)))

    def of_embedding(self) -> Rows | None:
        return None

    def sizes(self, config: ModelConfig) -> dict[str, Any]:
        return {"token_dim": config.kv_heads * config.head_width, "num_attention_heads": config.kv_heads}


PROMPTED: dict[str, type[Prompted]] = {"PROMPT_TUNING": Prompted, "P_TUNING": Prompted, "PREFIX_TUNING": Prefixed}
"""By their names in peft's files."""


def learned_rows(peft_type: str, rows_PW: Tensor, base: Path) -> Prompted:
    """One that has learned those rows, and no longer needs what made them."""
    adapter = PROMPTED[peft_type](PromptsConfig(tokens=len(rows_PW)), base)
    adapter.beginning = {adapter.place: rows_PW}
    return adapter
