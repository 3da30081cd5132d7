"""`seedbed fuse`: one model of a base and an adapter."""

from __future__ import annotations

import shlex
from typing import Any

from seedbed.errors import DataError
from seedbed.model.adapters.folder import base_of, is_adapter, tell_other_base
from seedbed.model.folder import adapted, find_model, load_model, refuse_worn, save_model
from seedbed.model.linears.layers import made_whole
from seedbed.model.weights import not_finite
from seedbed.tuning.config import FuseConfig


def fuse(config: FuseConfig) -> dict[str, Any]:
    """Writes the model that computes what the base and the adapter do together; {"model": its folder}.

    What is in few bits is made whole first, so that nothing is rounded twice.
    """
    folder = find_model(config.adapter)
    if not is_adapter(folder):
        raise DataError(f"{config.adapter} is no adapter", "Give a folder in peft's format, or a run that trained one.")
    base = find_model(config.model or base_of(folder))
    tell_other_base(folder, base)
    model, tokenizer = adapted(folder, *load_model(base))
    refuse_worn(model)
    model = made_whole(model)
    if broken := not_finite(dict(model.named_parameters())):
        raise DataError(f"{folder}: {broken} with it holds what is no number", "Use an earlier checkpoint.")
    card = {
        "What": f"The model `{base}` with the adapter `{config.adapter}` merged into it by `seedbed fuse`.",
        "Use": f'`seedbed generate --model {shlex.quote(str(config.out))} --prompt "Once"`.',
    }
    save_model(config.out, model, tokenizer, inputs={"model": base, "adapter": folder}, card=card)
    return {"model": str(config.out)}
