"""`seedbed merge`: one model of several."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from seedbed.errors import ConfigError
from seedbed.model.folder import find_model, load_model, manifest_config, tell_unfinished, write_model
from seedbed.model.transformer import Transformer
from seedbed.model.weights import not_finite
from seedbed.runs import command, new_folder, write_card, write_result
from seedbed.tokenizers.tokenizer import Tokenizer
from seedbed.tuning.merging.config import UNWEIGHTED, MergeConfig
from seedbed.tuning.merging.evolution import HeldOut, evolve
from seedbed.tuning.merging.recipe import Weights, merged
from seedbed.tuning.merging.stacking import read_slices, stacked


def merge(config: MergeConfig) -> dict[str, Any]:
    """Writes the model folder `config.out`; returns what its result.json says."""
    began = time.perf_counter()
    inputs = {f"model {number}": find_model(path) for number, path in enumerate(config.models)}
    if config.base is not None:
        inputs = {"base": find_model(config.base), **inputs}
    described: dict[str, Any] = {}
    with new_folder(config.out, "model", inputs=inputs, config=described) as staging:
        origin, tokenizer, base, models = _load(config)
        result: dict[str, Any] = {
            "command": command("merge", config),
            "model": str(config.out),
            "method": config.method,
            "models": [str(path) for path in config.models],
        }
        if config.method == "stack":
            slices = read_slices(config.layers, len(models), origin.config.layers)
            architecture, weights = stacked(origin.config, models, slices)
            model = Transformer(architecture).to(origin.dtype)
            result["layers"] = architecture.layers
        else:
            model, shares = origin, config.weights or [1.0] * len(models)
            result["arithmetic"] = config.arithmetic
            if config.evolve.tokens is not None:
                shares, result["evolved"] = _evolved(config, shares, origin, tokenizer, base, models)
            if config.method not in UNWEIGHTED:
                result["weights"] = list(shares)
            weights = merged(config, shares, base, models)
        _refuse_broken(weights)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(weights[name])
        described |= manifest_config(model)
        write_model(staging, model, tokenizer, inputs=inputs)
        result["seconds"] = round(time.perf_counter() - began, 2)
        write_card(staging, config.out.name, _card(config, result))
        write_result(staging, result)
    return result


def _load(config: MergeConfig) -> tuple[Transformer, Tokenizer, Weights | None, list[Weights]]:
    """The model that the result is like, its tokenizer, and the weights of the base and of every model."""
    paths = [*config.models] if config.base is None else [config.base, *config.models]
    for path in paths:
        tell_unfinished(path)
    loaded = [load_model(path, learns=True) for path in paths]
    origin = loaded[0][0]
    tokenizer = loaded[len(paths) - len(config.models)][1]  # a base seldom has the template of its chat models
    for path, (model, own) in zip(paths, loaded, strict=True):
        _refuse_unlike(paths[0], origin, tokenizer, path, model, own)
    # Of the first, too, a copy: its parameters are what trials are written to.
    weights: list[Weights] = [
        {name: weight.detach().clone() for name, weight in model.named_parameters()} for model, _ in loaded
    ]
    if config.base is None:
        return origin, tokenizer, None, weights
    return origin, tokenizer, weights[0], weights[1:]


def _refuse_unlike(
    first: Path, one: Transformer, tokenizer: Tokenizer, path: Path, other: Transformer, own: Tokenizer
) -> None:
    """ConfigError for a model whose weights do not mean the same as those of the first. Chat templates may differ."""
    ours, theirs = asdict(one.config), asdict(other.config)
    if unlike := [f"{name} {theirs[name]}, not {ours[name]}" for name in ours if ours[name] != theirs[name]]:
        raise ConfigError(f"{path} is of another architecture than {first}: {', '.join(unlike)}")
    if own.with_template("").hash != tokenizer.with_template("").hash:
        raise ConfigError(f"{path} has another tokenizer than the others: the same id means another token")


def _evolved(
    config: MergeConfig,
    shares: Sequence[float],
    model: Transformer,
    tokenizer: Tokenizer,
    base: Weights | None,
    models: Sequence[Weights],
) -> tuple[list[float], dict[str, Any]]:
    held_out = HeldOut(model, tokenizer, config.evolve)
    found = evolve(shares, lambda weights: held_out(merged(config, weights, base, models)), config.evolve)
    if found.loss == float("inf"):
        raise ConfigError("no trial had a loss that is a number", "Begin with other --weights.")
    losses = [loss if math.isfinite(loss) else None for loss in found.losses]  # JSON knows no infinity
    told = {"trials": len(losses), "loss_first": losses[0], "loss": found.loss, "losses": losses}
    return found.weights, told


def _refuse_broken(weights: Weights) -> None:
    if broken := not_finite(weights):
        raise ConfigError(
            f"the merged model would hold numbers that are none, in {broken}",
            "Weights that sum up to nought cannot be normalized; give others, or --normalize false.",
        )


def _card(config: MergeConfig, result: Mapping[str, Any]) -> dict[str, str | list[str]]:
    how = {name: result[name] for name in ("weights", "layers", "arithmetic") if name in result}
    return {
        "What": f"A language model made of {len(config.models)} by `seedbed merge --method {config.method}`.",
        "How": [f"{name}: {value}" for name, value in how.items()] or ["as the method says"],
        "Made from": [f"`{path}`" for path in (*filter(None, [config.base]), *config.models)],
        "Use": f'`seedbed generate --model {shlex.quote(str(config.out))} --prompt "Once"`',
    }
