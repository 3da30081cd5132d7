"""`seedbed quantize`: a model in fewer bits, and what that cost."""

from __future__ import annotations

import shlex
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seedbed.errors import ConfigError
from seedbed.evaluation.likelihood import Likelihood, measure_windows
from seedbed.model.accounting import count_parameters
from seedbed.model.folder import find_model, load_model, manifest_config, tell_unfinished, write_model
from seedbed.model.huggingface.quantised import describe_quantised
from seedbed.model.linears.layers import storages
from seedbed.model.transformer import Transformer
from seedbed.quantization.awq import equalise
from seedbed.quantization.config import QuantizeConfig
from seedbed.quantization.convert import Loss, choose, convert, refuse_broken
from seedbed.quantization.report import layers_of, summary, table
from seedbed.quantization.samples import read_windows
from seedbed.quantization.schemes import rounding
from seedbed.runs import command, new_folder, write_card, write_result
from seedbed.tokenizers.tokenizer import Tokenizer

HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}
"""Schemes that round every number alike."""
ROWS = 8
"""Of text that go through the model at once."""
DEFAULT_METHODS = {"int8": "nearest", "int4": "gptq", "nf4": "nearest"}
"""By scheme, with text to calibrate on."""


def quantize(config: QuantizeConfig) -> dict[str, Any]:
    """Writes the model folder `config.out`; prints a table, and returns what result.json says, the errors of each layer
    among it."""
    began = time.perf_counter()
    tell_unfinished(config.model)
    inputs = {"model": find_model(config.model)}
    described: dict[str, Any] = {}
    with new_folder(config.out, "model", inputs=inputs, config=described) as staging:
        model, tokenizer = load_model(config.model, dtype="float32", learns=True)
        fp32_bytes = sum(weight.nbytes for weight in model.parameters())
        held_out = None if config.text is None else _held_out(config, config.text, model, tokenizer)
        measured = [_perplexity(model, tokenizer, held_out)]
        losses = _convert(config, model, tokenizer)
        measured.append(_perplexity(model, tokenizer, held_out))
        described |= manifest_config(model)
        result: dict[str, Any] = {
            "command": command("quantize", config),
            "model": str(config.out),
            "scheme": config.scheme,
            "fp32_bytes": fp32_bytes,
            "layers": layers_of(losses),
            "perplexity": _compared(*measured),
        }
        write_model(staging, model, tokenizer, inputs=inputs)
        result["bytes"] = sum(file.stat().st_size for file in staging.glob("*.safetensors"))
        result |= {"share": result["bytes"] / fp32_bytes, "seconds": round(time.perf_counter() - began, 2)}
        write_card(staging, config.out.name, _card(config, model, result))
        write_result(staging, result)
    print(f"{table(result)}\n{describe_quantised(model.config, storages(model))}")
    return result


def _held_out(config: QuantizeConfig, text: Path, model: Transformer, tokenizer: Tokenizer) -> list[list[int]]:
    if not model.config.causal:
        raise ConfigError("text is for perplexity, which a model that reads both ways does not have", "Leave it out.")
    return read_windows(text, tokenizer, split="val", length=model.config.context, most=config.text_tokens)


def _perplexity(model: Transformer, tokenizer: Tokenizer, windows: list[list[int]] | None) -> Likelihood | None:
    return None if windows is None else measure_windows(model, tokenizer, windows, batch=ROWS)


def _compared(before: Likelihood | None, after: Likelihood | None) -> dict[str, Any] | None:
    if before is None or after is None:
        return None
    change = after.perplexity / before.perplexity - 1
    return {"before": before.perplexity, "after": after.perplexity, "change": change, "tokens": before.tokens}


def _convert(config: QuantizeConfig, model: Transformer, tokenizer: Tokenizer) -> dict[str, Loss]:
    """Changes the model; what each layer lost, where layers are changed one by one."""
    if config.scheme in HALVES:
        model.to(HALVES[config.scheme])
        refuse_broken(model)  # fp16 ends at 65,504
        return {}

    layers = choose(model, config.exclude)
    sample_NT = None if config.calibration is None else _sample(config, config.calibration, model, tokenizer)
    method = None if sample_NT is None else config.method or DEFAULT_METHODS[config.scheme]
    return convert(
        model,
        layers,
        rounding(config, model.config.tied),
        sample_NT,
        calibrates=method in ("gptq", "awq"),
        prepare=partial(equalise, group=config.group) if method == "awq" else None,
    )


def _sample(config: QuantizeConfig, text: Path, model: Transformer, tokenizer: Tokenizer) -> Tensor:
    """Rows of equal length."""
    length = model.config.context - 1  # windows have a token more
    windows = read_windows(text, tokenizer, split="train", length=length, most=config.calibration_tokens)
    return torch.tensor([window for window in windows if len(window) == len(windows[0])])


def _card(config: QuantizeConfig, model: Transformer, result: dict[str, Any]) -> dict[str, str | list[str]]:
    parameters = count_parameters(model.config).total
    what = f"A language model of {parameters:,} parameters in {config.scheme}, made by `seedbed quantize`."
    return {
        "What": f"{what} {describe_quantised(model.config, storages(model))}",
        "Cost": summary(result),
        "Made from": [f"model: `{config.model}`"],
        "Use": f'`seedbed generate --model {shlex.quote(str(config.out))} --prompt "Once"`. It learns no more.',
    }
