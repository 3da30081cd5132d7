"""What a model wears while its own weights rest, in a folder and in training."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seedbed.errors import ConfigError
from seedbed.model.adapters.changes import Change, LowRank, Scaling, folded, whole
from seedbed.model.adapters.config import Ia3Config, LoraConfig
from seedbed.model.adapters.folder import SERVED
from seedbed.model.adapters.learning import DirectedLayer, LearningLayer, LowRankLayer, ScaledLayer, Switch
from seedbed.model.adapters.writing import lora_files, scaling_files
from seedbed.model.config import ModelConfig
from seedbed.model.experts import BalancedRouter
from seedbed.model.linears.layers import StoredLinear
from seedbed.model.routing import find_routers
from seedbed.model.transformer import Transformer

Files = tuple[dict[str, Any], dict[str, Tensor]]
"""What a folder in peft's format holds: its config, and its tensors by name."""

THEIRS = {
    **{"q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "output"},
    **{"gate_proj": "gate", "up_proj": "up", "down_proj": "down"},
    **{"c_attn": "query, key and value", "c_fc": "up", "all-linear": '"*"'},
}
"""How layers are called in peft's configs, and here."""


class Adapter:
    """Of one method. It begins as nothing: a model that has just put it on computes what it did before; or as what an
    earlier training has left."""

    method: str
    """Its name for people."""
    over: str | None = None
    """nf4, where the base is to be in these bits."""

    def __init__(self, base: Path, seed: int = 0):
        """`base`: the folder of the model that it is for. `seed`: of its first weights."""
        self.base, self.seed = base, seed
        self.switch = Switch()
        self.beginning: Mapping[str, Tensor] = {}
        """What it begins with that was learned before, by the names of a model's parameters."""

    def put_on(self, model: Transformer) -> Transformer:
        """The same model, whose own weights rest from now on, with the adapter in it, as it begins. A score head, which
        no language model has, learns beside it. ConfigError where it does not fit."""
        model.requires_grad_(False)
        if model.score is not None:
            model.score.requires_grad_(True)
        for router in find_routers(model).values():
            if isinstance(router, BalancedRouter):
                router.rate = 0.0  # its biases are the base's, too
        self.fit(model, torch.Generator().manual_seed(self.seed))
        with torch.no_grad():
            for name, value in self.beginning.items():
                model.get_parameter(name).copy_(value)
        model.adapter = self
        return model

    def of_weights(self, config: ModelConfig, weights: Mapping[str, Tensor]) -> Transformer:
        """The model that wears it whose weights are these very tensors, by name."""
        with torch.device("meta"):
            model = Transformer(config)
        self.put_on(model).load_state_dict(weights, assign=True)
        return model

    def fit(self, model: Transformer, chance: torch.Generator) -> None:
        """Puts what it learns into a model whose weights rest."""
        raise NotImplementedError  # each method has its own

    def files(self, model: Transformer) -> Files:
        """What its folder holds, of a model that wears it."""
        raise NotImplementedError  # each method has its own

    def virtual_ids(self, config: ModelConfig) -> list[int]:
        """What is put before the ids of each text."""
        return []

    @contextlib.contextmanager
    def off(self, model: Transformer) -> Iterator[None]:
        """Inside, the model that wears it computes what it did when training began: what its base does, or, where it
        goes on from an earlier training, what came of that."""
        own = {name: model.get_parameter(name) for name in self.beginning}
        now = {name: parameter.data for name, parameter in own.items()}
        self.switch.on, before = bool(self.beginning), self.switch.on
        try:
            for name, parameter in own.items():
                parameter.data = self.beginning[name].to(parameter)
            yield
        finally:
            self.switch.on = before
            for name, parameter in own.items():
                parameter.data = now[name]


class LayerAdapter(Adapter):
    """One that changes layers, each by itself."""

    def learning(self, model: Transformer) -> dict[str, LearningLayer]:
        """Those layers, by name."""
        return {name: module for name, module in model.named_modules() if isinstance(module, LearningLayer)}

    def changes(self, model: Transformer) -> dict[str, Change]:
        """What they have learned."""
        return {name: layer.change for name, layer in self.learning(model).items()}


class LoraAdapter(LayerAdapter):
    """LoRA, and DoRA, which also learns how long each row of a weight is."""

    def __init__(
        self, config: LoraConfig, base: Path, seed: int = 0, *, directed: bool = False, over_nf4: bool = False
    ):
        super().__init__(base, seed)
        self.config, self.directed = config, directed
        self.method = "dora" if directed else "qlora" if over_nf4 else "lora"
        self.over = "nf4" if over_nf4 else None

    def fit(self, model: Transformer, chance: torch.Generator) -> None:
        config = self.config
        for name in find_layers(model, config.targets):
            layer = model.get_submodule(name)
            weight_OD, _ = whole(name, layer)
            outputs, inputs = weight_OD.shape
            if config.rank > min(outputs, inputs) and not self.beginning:
                raise ConfigError(
                    f"lora.rank is {config.rank}, but {name} has {inputs:,} inputs and {outputs:,} outputs",
                    f"Give --lora.rank {min(outputs, inputs)} or less.",
                )
            down_RD = torch.empty(config.rank, inputs)
            nn.init.kaiming_uniform_(down_RD, a=5**0.5, generator=chance)
            up_OR = weight_OD.new_zeros(outputs, config.rank)
            lengths_O = weight_OD.norm(dim=1) if self.directed else None
            change = LowRank(down_RD.to(up_OR), up_OR, config.scale, lengths_O)
            kind = DirectedLayer if self.directed else LowRankLayer
            _put(model, name, kind(layer, self.switch, change, config.dropout, config.up_rate))

    def files(self, model: Transformer) -> Files:

        changes = {name: change for name, change in self.changes(model).items() if isinstance(change, LowRank)}
        return lora_files(self.config, changes, model, self.base)


class Ia3Adapter(LayerAdapter):
    """IA³."""

    method = "ia3"

    def __init__(self, config: Ia3Config, base: Path, seed: int = 0):
        super().__init__(base, seed)
        self.config = config

    def fit(self, model: Transformer, chance: torch.Generator) -> None:
        for name in find_layers(model, self.config.targets, "ia3.targets"):
            layer, of_inputs = model.get_submodule(name), self.is_of_inputs(name)
            weight_OD, _ = whole(name, layer)
            change = Scaling(weight_OD.new_ones(weight_OD.shape[1 if of_inputs else 0]), of_inputs)
            _put(model, name, ScaledLayer(layer, self.switch, change))

    @staticmethod
    def is_of_inputs(name: str) -> bool:
        """Whether the factors of a layer are those of its inputs."""
        return name.endswith(".down")

    def files(self, model: Transformer) -> Files:
        changes = {name: change for name, change in self.changes(model).items() if isinstance(change, Scaling)}
        return scaling_files(changes, model, self.base)


def find_layers(model: Transformer, patterns: Sequence[str], key: str = "lora.targets") -> list[str]:
    """The names of a model's layers that fit one of some patterns and can be changed. ConfigError, with the nearest
    name, for a pattern that fits none."""
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | StoredLinear) and SERVED.fullmatch(f"{name}.weight")
    ]
    found: dict[str, None] = {}
    for pattern in patterns:
        fitting = [name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")]
        if not fitting:
            kinds = list(dict.fromkeys(name.split(".", 2)[2] for name in names))
            near = difflib.get_close_matches(pattern, {kind.rpartition(".")[2] for kind in kinds} | {*kinds}, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            hint = f"; here it is {THEIRS[pattern]}" if pattern in THEIRS else hint
            raise ConfigError(f"{key} has {pattern!r}, which fits no layer{hint}", f"Layers: {', '.join(kinds)}")
        found |= dict.fromkeys(fitting)
    return [name for name in names if name in found]


def _put(model: Transformer, name: str, layer: nn.Module) -> None:
    room, _, last = name.rpartition(".")
    setattr(model.get_submodule(room), last, layer)


def merge(model: Transformer) -> dict[str, LearningLayer]:
    """Puts plain layers, which compute the same, into the place of those that learn; those that were there, for
    `unmerge`. ConfigError for an adapter that no plain layers can compute."""
    adapter = model.adapter
    if adapter is None:
        return {}
    if not isinstance(adapter, LayerAdapter):
        raise ConfigError(f"an adapter of the method {adapter.method} cannot be merged: it is no change of weights")
    learning = adapter.learning(model)
    for name, layer in learning.items():
        _put(model, name, folded(name, layer.layer, layer.change))
    return learning


def unmerge(model: Transformer, learning: dict[str, LearningLayer]) -> None:
    """Puts the layers that `merge` took out back: the model computes what it did, to the bit."""
    for name, layer in learning.items():
        _put(model, name, layer)
