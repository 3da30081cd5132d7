"""`seedbed inspect`: what a model is and what it costs, also before it is trained."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from seedbed.configuration import from_arguments, list_presets, options, read_group
from seedbed.errors import ConfigError
from seedbed.model.accounting import cache_bytes, count_parameters, forward_flops, training_bytes, training_flops
from seedbed.model.config import InspectConfig, ModelConfig
from seedbed.model.depth import Budget, derive_sizes, derive_training, table
from seedbed.model.folder import EXACT, find_config, find_model
from seedbed.model.huggingface.quantised import describe_quantised
from seedbed.model.linears.storage import Storage, describe, read_storages
from seedbed.optim.config import OptimizerConfig

USUAL_VOCABULARY = 32_768
"""Of a depth that is told without a vocabulary."""


def inspect_model(config: InspectConfig) -> dict[str, Any]:
    """Prints sizes, parameters by part, FLOPs a token and memory; returns the same numbers."""
    given, stored = _find(config), _stored(config)
    model = replace(given, vocab_size=config.vocab_size or given.vocab_size).resolve()
    length = config.length or model.context
    count = count_parameters(model)
    result = {
        "model": asdict(model),
        "huggingface": describe_quantised(model, stored),
        "stored": describe(stored) or None,
        "parameters": {
            **asdict(count),
            "total": count.total,
            "without_embedding": count.total - count.embedding,
            "active": count_parameters(model, active=True).total,
        },
        "length": length,
        "forward_flops_per_token": forward_flops(model, length),
        "training_flops_per_token": training_flops(model, length),
        "weight_bytes": 4 * count.total,
        "stored_bytes": _stored_bytes(config),
        "cache_bytes_per_sequence": cache_bytes(model, length),
        "training_bytes": training_bytes(model, config.batch * length),
    }
    print(_table(result, config))
    if given.depth is not None:
        derived = [*derive_sizes(given, model), *derive_training(model, length, OptimizerConfig(), Budget())]
        result["derived"] = {item.key: item.value for item in derived}
        print(f"\n{table(derived)}")
    return result


def _find(config: InspectConfig) -> ModelConfig:
    """The model of a folder, the `model` part of a preset or YAML file, or what a depth makes."""
    if config.model is None:
        return ModelConfig(depth=config.depth, vocab_size=config.vocab_size or USUAL_VOCABULARY)
    path = Path(config.model)
    if path.is_dir():
        return find_config(path)
    sizes = read_group(config.model, "model")
    for key in sizes.keys() - options(ModelConfig).keys():
        raise ConfigError(f"{config.model}: unknown key model.{key}")
    model = from_arguments(ModelConfig, [f"--{key}={value}" for key, value in sizes.items()])
    if model.vocab_size is None:
        usual = next((preset.vocabulary for preset in list_presets() if preset.name == config.model), None)
        model = replace(model, vocab_size=usual)
    if model.vocab_size is None and config.vocab_size is None:
        raise ConfigError(
            f"{config.model} leaves the vocabulary to the tokenizer: inspect needs --vocab_size",
            "A tokenizer of bytes has 263; any other's result.json tells its own.",
        )
    return model


def _stored(config: InspectConfig) -> dict[str, Storage]:
    """How the layers of a folder of ours are stored that are in few bits."""
    path = None if config.model is None else find_model(Path(config.model)) / EXACT
    return {} if path is None or not path.is_file() else read_storages(path)


def _stored_bytes(config: InspectConfig) -> int | None:
    files = [] if config.model is None else list(find_model(Path(config.model)).glob("*.safetensors"))
    return sum(file.stat().st_size for file in files) if files else None


def _feedforward(model: dict[str, Any]) -> str:
    if not model["experts"]:
        return str(model["ff_width"])
    shared = f" and {model['experts_shared']} shared" if model["experts_shared"] else ""
    return f"{model['experts_active']} of {model['experts']} experts{shared} of {model['expert_width']}"


def _head(model: dict[str, Any]) -> str:
    if model["head"] == "score":
        return "of one score: a reward model or a critic"
    critic = ", and a critic's" if model["head"] == "both" else ""
    return ("tied" if model["tied"] else "its own") + critic


def _as_stored(result: dict[str, Any]) -> str:
    size = result["stored_bytes"]
    return "" if size is None or size > 0.95 * result["weight_bytes"] else f"  ({size / 1e6:,.1f} as they are stored)"


def _table(result: dict[str, Any], config: InspectConfig) -> str:
    model, length = result["model"], result["length"]
    name = config.model or f"depth {config.depth}"
    lines = [
        f"{name}: {model['layers']} layers × {model['width']}, {model['heads']} heads of {model['head_width']}"
        f" ({model['kv_heads']} key/value), feed-forward {_feedforward(model)}, vocabulary {model['vocab_size']:,},"
        f" context {model['context']:,}, head {_head(model)}",
        result["huggingface"] + (f" Its layers are in {result['stored']}." if result["stored"] else ""),
        "",
        "parameters",
        *(f"  {name.replace('_', ' '):<20}{number:>16,}" for name, number in result["parameters"].items()),
        "",
        f"FLOPs a token, sequences of {length:,}",
        f"  {'forward':<20}{result['forward_flops_per_token']:>16,}",
        f"  {'training':<20}{result['training_flops_per_token']:>16,}",
        "",
        "memory, fp32, MB",
        f"  {'weights':<20}{result['weight_bytes'] / 1e6:>16,.1f}{_as_stored(result)}",
        f"  {'cache, a sequence':<20}{result['cache_bytes_per_sequence'] / 1e6:>16,.1f}",
        f"  {f'training, {config.batch} rows':<20}{result['training_bytes'] / 1e6:>16,.1f}  (estimate)",
    ]
    return "\n".join(lines)
