"""The adapter of a folder: on a model, or as one that learns on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from seedbed.errors import ConfigError, DataError
from seedbed.model.adapters.adapter import Adapter, Ia3Adapter, LoraAdapter
from seedbed.model.adapters.bottleneck import BottleneckAdapter, learned
from seedbed.model.adapters.changes import LowRank, Scaling, fold
from seedbed.model.adapters.config import BottleneckConfig, Ia3Config, LoraConfig
from seedbed.model.adapters.folder import read_changes, read_score, stored_adapter, weights_file
from seedbed.model.adapters.peft_config import CONFIG, Ia3File, LoraFile, read_config
from seedbed.model.adapters.prompts import learned_rows
from seedbed.model.config import ModelConfig
from seedbed.model.score_head import with_score_head
from seedbed.model.transformer import Transformer
from seedbed.model.weights import check_shapes, not_finite, one_dtype, read_weights
from seedbed.runs import MANIFEST, open_folder, read_json

ROWS = "prompt_embeddings"
"""What is learned before texts, in peft's files."""


def put_on(folder: Path, model: Transformer) -> Transformer:
    """A model with the adapter of a folder: merged into it where that can be, else worn, and resting; under its score
    head, where it has one. DataError, in one line, for one that does not fit; CorruptionError for a broken file."""
    try:
        score_1D, model = read_score(folder, model.config), _put_on(folder, model)
        return model if score_1D is None else with_score_head(model, score_1D)
    except ConfigError as error:
        raise DataError(f"{folder}: {error.problem}") from error


def _put_on(folder: Path, model: Transformer) -> Transformer:
    if isinstance(read_config(folder), LoraFile | Ia3File):
        return fold(model, read_changes(folder, model.config))
    return read_learner(folder, folder, model.config).put_on(model).requires_grad_(False)


def read_learner(folder: Path, base: Path, model: ModelConfig, *, over_nf4: bool = False) -> Adapter:
    """The adapter of a folder as one that begins with what it has learned, and learns on. `base`: the folder of the
    model that it is for, whose config is `model`, and which is in these bits if it is `over_nf4`. Errors as `put_on`
    has them; DataError for one of what are no numbers, which no step mends."""
    if (folder / MANIFEST).is_file():
        open_folder(folder, "adapter", verify="all")
    try:
        adapter = _learner(folder, base, model, over_nf4)
    except ConfigError as error:
        raise DataError(f"{folder}: {error.problem}") from error
    if broken := not_finite(adapter.beginning):
        raise DataError(f"{folder}: {broken} holds what is no number: the adapter is broken")
    return adapter


def _learner(folder: Path, base: Path, model: ModelConfig, over_nf4: bool) -> Adapter:
    config = read_config(folder)
    if isinstance(config, LoraFile):
        return _learning_lora(folder, config, base, model, over_nf4)
    if isinstance(config, Ia3File):
        return _learning_ia3(folder, base, model)
    file = weights_file(folder)
    stored = stored_adapter(file)
    found = {name: tensor.shape for name, tensor in stored.items()}
    if isinstance(config, BottleneckConfig):
        with torch.device("meta"):
            like = BottleneckAdapter(config, folder).put_on(Transformer(model))
        check_shapes({name: tuple(weight.shape) for name, weight in learned(like).items()}, found, file)
        one_dtype(folder, stored)
        adapter = BottleneckAdapter(config, base)
        adapter.beginning = read_weights(stored)
        return adapter
    peft_type = str(read_json(folder / CONFIG)["peft_type"])
    width = 2 * model.layers * model.kv_heads * model.head_width if peft_type == "PREFIX_TUNING" else model.width
    check_shapes({ROWS: (config.num_virtual_tokens, width)}, found, file)
    one_dtype(folder, stored)
    return learned_rows(peft_type, read_weights(stored)[ROWS], base)


def _learning_lora(folder: Path, file: LoraFile, base: Path, model: ModelConfig, over_nf4: bool) -> LoraAdapter:
    changes = read_changes(folder, model)
    low = _of_least_rank({name: change for name, change in changes.items() if isinstance(change, LowRank)})
    rank = max(len(change.down_RD) for change in low.values())
    whole = rank == file.r
    config = LoraConfig(
        rank=rank,
        alpha=file.lora_alpha if whole else file.scale * rank,
        rank_stabilized=file.use_rslora and whole,
        dropout=_dropout(folder),
        targets=list(low),
    )
    adapter = LoraAdapter(config, base, directed=file.use_dora, over_nf4=over_nf4)
    beginning: dict[str, Tensor] = {}
    for name, change in low.items():
        more = rank - len(change.down_RD)
        beginning[f"{name}.down"] = torch.nn.functional.pad(change.down_RD, (0, 0, 0, more))
        beginning[f"{name}.up"] = torch.nn.functional.pad(change.up_OR, (0, more))
        if change.magnitude_O is not None:
            beginning[f"{name}.magnitude"] = change.magnitude_O
    adapter.beginning = beginning
    return adapter


def _of_least_rank(changes: Mapping[str, LowRank]) -> dict[str, LowRank]:
    """The same, each without what adds nothing: several layers of ours that lie in one of theirs have all of its rank,
    of which a part is the others', and all layers in a file have the highest; an adapter that is trained on would have
    more at each saving. One that lies among others and learned nothing was left alone, and is left out; not under DoRA,
    where it has lengths."""
    together = Counter(id(change.down_RD) for change in changes.values())
    shared = {name for name, change in changes.items() if together[id(change.down_RD)] > 1}
    used = {
        name: change.up_OR.any(0) if name in shared else change.up_OR.any(0) | change.down_RD.any(1)
        for name, change in changes.items()
    }
    rank = max(int(used_R.sum()) for used_R in used.values())
    if not rank:  # nothing has been learned yet
        return dict(changes)
    found = {}
    for name, change in changes.items():
        rows = used[name].nonzero()[:, 0]
        if not len(rows):
            if name in shared and change.magnitude_O is None:
                continue
            rows = torch.arange(rank)
        found[name] = LowRank(change.down_RD[rows], change.up_OR[:, rows], change.scale, change.magnitude_O)
    return found


def _dropout(folder: Path) -> float:
    """As in the training before."""
    said = read_json(folder / CONFIG).get("lora_dropout")
    return float(said) if isinstance(said, float) and 0 <= said <= 0.95 else 0.0


def _learning_ia3(folder: Path, base: Path, model: ModelConfig) -> Ia3Adapter:
    changes: Mapping[str, Scaling] = {
        name: change for name, change in read_changes(folder, model).items() if isinstance(change, Scaling)
    }
    adapter = Ia3Adapter(Ia3Config(targets=list(changes)), base)
    for name, change in changes.items():
        if change.of_inputs != adapter.is_of_inputs(name):
            what = "inputs" if change.of_inputs else "outputs"
            raise DataError(f"{folder}: it multiplies the {what} of {name}, which is not learned here")
    adapter.beginning = {f"{name}.factors": change.factors for name, change in changes.items()}
    return adapter
