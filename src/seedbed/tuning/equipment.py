"""What a stage does to the model it begins with: nothing, or an adapter is put on it.

A stage that takes this over has a config that is a `TuningConfig`, and makes its model by `equipped`.
"""

from __future__ import annotations

from seedbed.errors import ConfigError
from seedbed.model.adapters.adapter import Adapter, Ia3Adapter, LoraAdapter
from seedbed.model.adapters.folder import is_adapter
from seedbed.model.folder import find_model, load_model, read_stored
from seedbed.model.linears.layers import nf4, storages
from seedbed.model.linears.storage import describe
from seedbed.model.transformer import Transformer
from seedbed.tokenizers.tokenizer import Tokenizer
from seedbed.training.precision import MASTER
from seedbed.tuning.config import LORA_METHODS, TuningConfig

FUSE = "Make one model of both first: seedbed fuse --adapter ADAPTER --out MODEL."


def equipped(model: Transformer, config: TuningConfig) -> Transformer:
    """The model that training begins with, the same at every call. ConfigError for an adapter that does not fit."""
    adapter = build_adapter(config)
    if adapter is None:
        return model
    if config.method == "qlora" and not storages(model):
        model = nf4(model)
    return adapter.put_on(model)


def build_adapter(config: TuningConfig) -> Adapter | None:
    """What the config asks for; None under the method full."""
    if config.method == "full":
        return None
    base = find_model(config.model)
    if is_adapter(base):
        raise ConfigError(f"{config.model} is an adapter, and another one is to be trained over it", FUSE)
    if config.train.tensor_parallel > 1:
        raise ConfigError("train.tensor_parallel divides layers, which an adapter cannot follow", "Take fsdp or ddp.")
    if config.method in LORA_METHODS:
        kinds = {"directed": config.method == "dora", "over_nf4": config.method == "qlora"}
        return LoraAdapter(config.lora.resolve(), base, config.train.seed, **kinds)
    return Ia3Adapter(config.ia3, base, config.train.seed)


def load_base(config: TuningConfig, tokenizer: Tokenizer | None = None) -> tuple[Transformer, Tokenizer]:
    """The model to begin with, in the precision that is trained, and its tokenizer. ConfigError for one in few bits,
    unless they are those of qlora."""
    stored = read_stored(find_model(config.model))
    if config.method == "qlora" and stored:
        if (scheme := describe(stored)) != "nf4":
            raise ConfigError(
                f"{config.model} is quantized already ({scheme}), and qlora is over nf4",
                "Take the model that it was made of.",
            )
        return load_model(config.model, tokenizer=tokenizer)
    return load_model(config.model, dtype=MASTER, tokenizer=tokenizer, learns=True)
