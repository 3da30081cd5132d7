"""Changes of layers as peft's files have them.

Where several layers of ours lie in one of theirs, their changes become one of a higher rank, which computes the same:
each has rows of the one matrix and, for its own outputs, columns of the other.

Shape suffixes: R rank, S the higher one, D inputs, O outputs of a layer of ours, P of one of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seedbed.model.adapters.changes import LowRank, Scaling, whole
from seedbed.model.adapters.config import LoraConfig
from seedbed.model.huggingface.classes import find_table
from seedbed.model.names import Layout, Transposed, layers_of_theirs
from seedbed.model.transformer import Transformer, weight_shapes

TUNER = "base_model.model."
"""Before the names of a class's layers in peft's files."""


def common(peft_type: str, base: Path) -> dict[str, Any]:
    """What every config of peft says."""
    return {
        "peft_type": peft_type,
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base.resolve()),
        "inference_mode": True,
    }


def lora_files(
    config: LoraConfig, changes: Mapping[str, LowRank], model: Transformer, base: Path
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Of LoRA and DoRA."""
    shapes, joined = weight_shapes(model.config), {}
    for theirs, layout, ours in theirs_of(changes, model):
        sizes = [shapes[f"{name}.weight"][0] for name in ours]
        joined[theirs] = _joined([changes.get(name) for name in ours], sizes, layout, model.config.head_width)
        if any(changes[name].magnitude_O is not None for name in ours if name in changes):
            lengths = [_lengths(model, name, changes.get(name)) for name in ours]
            joined[theirs] += (layout.join_outputs(lengths, model.config.head_width),)
    rank = max(len(parts[0]) for parts in joined.values())
    tensors = {}
    for theirs, (down_SD, up_PS, *lengths) in joined.items():
        more = rank - len(down_SD)  # of rank nought: one number says the rank of all
        tensors[f"{TUNER}{theirs}.lora_A.weight"] = F.pad(down_SD, (0, 0, 0, more))
        tensors[f"{TUNER}{theirs}.lora_B.weight"] = F.pad(up_PS, (0, more))
        if lengths:
            tensors[f"{TUNER}{theirs}.lora_magnitude_vector"] = lengths[0]
    values = common("LORA", base) | {
        "r": rank,
        "lora_alpha": config.resolve().alpha if rank == config.rank else config.scale * rank,
        "use_rslora": config.rank_stabilized and rank == config.rank,
        "use_dora": any(change.magnitude_O is not None for change in changes.values()),
        "lora_dropout": config.dropout,
        "target_modules": targets(joined, model),
        "bias": "none",
        "fan_in_fan_out": is_transposed(model),
        "init_lora_weights": True,
    }
    return values, tensors


def scaling_files(
    changes: Mapping[str, Scaling], model: Transformer, base: Path
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Of IA³."""
    shapes, tensors, of_inputs = weight_shapes(model.config), {}, {}
    for theirs, layout, ours in theirs_of(changes, model):
        some = next(changes[name] for name in ours if name in changes)
        of_inputs[theirs] = some.of_inputs
        factors = [
            changes[name].factors if name in changes else some.factors.new_ones(shapes[f"{name}.weight"][0])
            for name in ours
        ]
        outputs_P = some.factors if some.of_inputs else layout.join_outputs(factors, model.config.head_width)
        tensors[f"{TUNER}{theirs}.ia3_l"] = outputs_P[None] if some.of_inputs else outputs_P[:, None]
    every = targets(of_inputs, model)
    feedforward = targets({name: None for name, inputs in of_inputs.items() if inputs}, model)
    if not set(feedforward) <= set(every):  # GPT-2 calls the last layer of both alike; peft wants a part of the whole
        every, feedforward = list(of_inputs), [name for name, inputs in of_inputs.items() if inputs]
    values = common("IA3", base) | {
        "target_modules": every,
        "feedforward_modules": feedforward,
        "fan_in_fan_out": is_transposed(model),
        "init_ia3_weights": True,
    }
    return values, tensors


def theirs_of(changed: Mapping[str, Any], model: Transformer) -> Iterator[tuple[str, Layout, list[str]]]:
    """The layers of theirs in which those lie: their names, and how and which of ours lie in each."""
    for theirs, (layout, ours) in _layers(model).items():
        layers = [name.removesuffix(".weight") for name in ours]
        if any(layer in changed for layer in layers):
            yield theirs.removesuffix(".weight"), layout, layers


def targets(changed: Mapping[str, Any], model: Transformer) -> list[str]:
    """The fewest names that say them: the last parts of names, where all layers of that name are changed."""
    every: dict[str, list[str]] = {}
    for theirs in _layers(model):
        if theirs.endswith(".weight"):
            name = theirs.removesuffix(".weight")
            every.setdefault(name.rpartition(".")[2], []).append(name)
    said = []
    for last, names in every.items():
        some = [name for name in names if name in changed]
        said += [last] if some == names else some
    return said


def is_transposed(model: Transformer) -> bool:
    """Whether their layers keep the transpose of a weight."""
    return any(isinstance(layout, Transposed) for layout, _ in _layers(model).values())


def _layers(model: Transformer) -> dict[str, tuple[Layout, list[str]]]:
    return layers_of_theirs(weight_shapes(model.config), find_table(model.config))


def _joined(
    changes: Sequence[LowRank | None], sizes: Sequence[int], layout: Layout, head_width: int
) -> tuple[Tensor, ...]:
    ranks = [0 if change is None else len(change.down_RD) for change in changes]
    downs = [change.down_RD for change in changes if change is not None]
    ups, before = [], 0
    for change, rank, size in zip(changes, ranks, sizes, strict=True):
        up_OR = downs[0].new_zeros(size, 0) if change is None else change.up_OR
        ups.append(F.pad(up_OR, (before, sum(ranks) - before - rank)))
        before += rank
    return torch.cat(downs), layout.join_outputs(ups, head_width)


def _lengths(model: Transformer, name: str, change: LowRank | None) -> Tensor:
    """Of each row: what was learned, or, where nothing was, what it is."""
    if change is not None and change.magnitude_O is not None:
        return change.magnitude_O
    return whole(name, model.get_submodule(name))[0].norm(dim=1)
