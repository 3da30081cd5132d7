"""What a stage does to the model it begins with: nothing, or an adapter is put on it.

A stage that takes this over has a config that is a `TuningConfig`, and makes its model by `equipped`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

from seedbed.data.rows import input_files
from seedbed.errors import ConfigError
from seedbed.model.adapters.adapter import Adapter, Ia3Adapter, LoraAdapter
from seedbed.model.adapters.bottleneck import BottleneckAdapter
from seedbed.model.adapters.folder import base_bits, base_of, is_adapter, read_score
from seedbed.model.adapters.opening import read_learner
from seedbed.model.adapters.prompts import Prefixed, Prompted
from seedbed.model.folder import find_config, find_model, load_model, read_stored, tell_unfinished
from seedbed.model.linears.layers import nf4, storages
from seedbed.model.linears.storage import describe
from seedbed.model.score_head import refuse_score_head, with_score_head
from seedbed.model.transformer import Transformer
from seedbed.runs import MANIFEST
from seedbed.tokenizers.chat import find_template
from seedbed.tokenizers.tokenizer import Tokenizer
from seedbed.training.objective import refuse_both_ways
from seedbed.training.precision import MASTER
from seedbed.tuning.config import LORA_METHODS, TuningConfig

C = TypeVar("C", bound=TuningConfig)

FURTHER = "Train it on by --method further, or fuse both first: seedbed fuse --adapter ADAPTER --out MODEL."


def equipped(model: Transformer, config: TuningConfig) -> Transformer:
    """The model that training begins with, the same at every call. ConfigError for an adapter that does not fit."""
    adapter = build_adapter(config)
    if adapter is None:
        return frozen(model, config.freeze)
    if adapter.over == "nf4" and not storages(model):
        model = nf4(model)
    return adapter.put_on(model)


def frozen(model: Transformer, patterns: Sequence[str]) -> Transformer:
    """The same model, some of whose weights rest. ConfigError for a pattern that fits none, or where all rest."""
    learning = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    for pattern in patterns:
        fitting = [name for name in learning if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")]
        if not fitting:
            near = difflib.get_close_matches(pattern, [*learning, *(name.split(".")[0] for name in learning)], n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"freeze has {pattern!r}, which fits no weight{hint}", f"Weights: {', '.join(learning)}")
        for name in fitting:
            learning[name].requires_grad_(False)
    if patterns and not any(weight.requires_grad for weight in learning.values()):
        raise ConfigError("freeze leaves nothing to learn", "Freeze less.")
    return model


def build_adapter(config: TuningConfig) -> Adapter | None:
    """What the config asks for; None under the method full."""
    if config.method == "full":
        return None
    base = find_model(config.model)
    if config.train.tensor_parallel > 1:
        raise ConfigError("train.tensor_parallel divides layers, which an adapter cannot follow", "Take fsdp or ddp.")
    if config.method == "further":
        under = base_of(base)
        adapter = read_learner(base, under, find_config(under), over_nf4=_is_over_nf4(base, under))
        config.refuse(adapter.method)
        return adapter
    if is_adapter(base):
        raise ConfigError(f"{config.model} is an adapter, and another one is to be trained over it", FURTHER)
    if config.method in LORA_METHODS:
        kinds = {"directed": config.method == "dora", "over_nf4": config.method == "qlora"}
        return LoraAdapter(config.lora.resolve(), base, config.train.seed, **kinds)
    if config.method == "ia3":
        return Ia3Adapter(config.ia3, base, config.train.seed)
    if config.method == "adapter":
        return BottleneckAdapter(config.bottleneck, base, config.train.seed)
    if config.method == "prefix":
        return Prefixed(config.prompts, base, config.train.seed, network=config.prompts.hidden is not None)
    return Prompted(config.prompts, base, config.train.seed, network=config.method == "p_tuning")


def load_base(
    config: TuningConfig, tokenizer: Tokenizer | None = None, *, scores: bool = False
) -> tuple[Transformer, Tokenizer]:
    """The model to begin with, in the precision that is trained, and its tokenizer; of an adapter that is trained
    further its base, under the adapter's own score head. `scores`: it may be a reward model. ConfigError for one in few
    bits, unless they are those of qlora."""
    found = find_model(config.model)
    if config.method != "further":
        return _load(config.model, tokenizer, over_nf4=config.method == "qlora", scores=scores)
    if not is_adapter(found):
        raise ConfigError(f"{config.model} is no adapter that could be trained further", "Take another --method.")
    base = base_of(found)
    model, own = _load(base, tokenizer, over_nf4=_is_over_nf4(found, base), scores=scores)
    if tokenizer is None and (found / MANIFEST).is_file():
        own = Tokenizer.load(found)
    score_1D = read_score(found, model.config)
    if score_1D is not None:
        model = with_score_head(model, score_1D)
        if not scores:
            refuse_score_head(model.config, str(config.model))
    return model, own


def _is_over_nf4(adapter: Path, base: Path) -> bool:
    """Whether its base is in these bits, or was when it was trained."""
    return base_bits(adapter) == "nf4" or describe(read_stored(base)) == "nf4"


def _load(path: Path, tokenizer: Tokenizer | None, *, over_nf4: bool, scores: bool) -> tuple[Transformer, Tokenizer]:
    stored = read_stored(find_model(path))
    if over_nf4 and stored:
        if (scheme := describe(stored)) != "nf4":
            raise ConfigError(
                f"{path} is quantized already ({scheme}), and qlora is over nf4", "Take the model that it was made of."
            )
        return load_model(path, tokenizer=tokenizer, scores=scores)
    return load_model(path, dtype=MASTER, tokenizer=tokenizer, learns=True, scores=scores)


def opened(config: C, load: Callable[[C], tuple[Transformer, Tokenizer]] = load_base) -> tuple[Transformer, Tokenizer]:
    """The model to begin with, as `load` has it, and its tokenizer with the template that the config says. ConfigError
    for a model that reads both ways."""
    tell_unfinished(config.model)
    model, tokenizer = load(config)
    refuse_both_ways(model.config)
    if config.template is not None:
        tokenizer = tokenizer.with_template(find_template(config.template))
    return model, tokenizer


def base_inputs(config: TuningConfig) -> dict[str, Path]:
    """What a stage begins with, for its manifest: the model, and the adapter over it that is trained further."""
    found = find_model(config.model)
    return {"model": base_of(found), "adapter": found} if config.method == "further" else {"model": found}


def stage_inputs(config: TuningConfig, data: Path) -> dict[str, Path]:
    """The same, with what it learns from and is validated on."""
    validation = {} if config.validation is None else input_files("validation", config.validation)
    return base_inputs(config) | input_files("data", data) | validation
