"""What an adapter's `adapter_config.json` says. No torch here."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from math import sqrt
from pathlib import Path

from seedbed.errors import CorruptionError, DataError
from seedbed.model.adapters.config import MOST_RANK, BottleneckConfig
from seedbed.runs import json_name, make_record, read_json

CONFIG = "adapter_config.json"
OF_NO_CONSEQUENCE = {
    *("peft_type", "peft_version", "task_type", "auto_mapping", "inference_mode"),
    *("base_model_name_or_path", "revision"),
    # Sizes of prompts are told by the base, and what made them is left behind.
    *("token_dim", "num_attention_heads", "num_layers", "prompt_tuning_init", "prompt_tuning_init_text"),
    *("tokenizer_name_or_path", "tokenizer_kwargs", "encoder_reparameterization_type", "encoder_hidden_size"),
    *("encoder_num_layers", "encoder_dropout", "prefix_projection", "init_weights"),
    # The weights that are there say which layers have some.
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("feedforward_modules", "init_ia3_weights"),
    # Of training.
    *("lora_dropout", "eva_config", "corda_config", "lora_ga_config"),
    # Both matrices lie alike for every layer. The rest belongs to what is refused.
    *("fan_in_fan_out", "megatron_core", "qalora_group_size", "runtime_config"),
}
BEGINNINGS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Of `init_lora_weights`: those that leave the base's own weights as they are."""
HEADS = ("classifier", "score")
"""What peft saves whole, beside an adapter, of a model that gives scores; ours is `score`."""
MERGE = "Merge it into its model: peft's merge_and_unload(), then save_pretrained()."


@dataclass(frozen=True)
class LoraFile:
    """What decides the result, by the names of the file."""

    r: int
    """Rank: rows of the one matrix, columns of the other."""

    lora_alpha: float
    use_rslora: bool = False
    use_dora: bool = False

    @property
    def scale(self) -> float:
        """What the product of both matrices is multiplied with: alpha / rank (Hu et al. 2021, arXiv:2106.09685, §4.1),
        or alpha / √rank (Kalajdzievski 2023, arXiv:2312.03732)."""
        return self.lora_alpha / (sqrt(self.r) if self.use_rslora else self.r)


@dataclass(frozen=True)
class Ia3File:
    """What decides the result: the weights alone."""


@dataclass(frozen=True)
class PromptFile:
    """What decides the result, beside the weights."""

    num_virtual_tokens: int
    num_transformer_submodules: int | None = 1


File = LoraFile | Ia3File | PromptFile | BottleneckConfig
KINDS: dict[str, type[File]] = {
    "LORA": LoraFile,
    "IA3": Ia3File,
    "PROMPT_TUNING": PromptFile,
    "P_TUNING": PromptFile,
    "PREFIX_TUNING": PromptFile,
    "BOTTLENECK": BottleneckConfig,
}
"""By peft_type, of which the last is ours: peft has no such method."""


def read_config(folder: Path) -> File:
    """Of an adapter's folder. DataError, naming the key, for whatever would change the result and is not computed here:
    biases, modules saved whole, other methods."""
    path = folder / CONFIG
    if not path.is_file():
        raise DataError(f"{folder} is no adapter: it holds no {CONFIG}", "Give a folder that peft has saved.")
    values = read_json(path)
    kind = KINDS.get(str(values.get("peft_type")))
    if kind is None:
        there = ", ".join(KINDS)
        raise DataError(f"{path}: peft_type is {json_name(values.get('peft_type'))}, seedbed has {there}", MERGE)
    own = [field.name for field in fields(kind)]
    for key, value in values.items():
        if key == "init_lora_weights":
            harmless = value in BEGINNINGS
        elif key == "modules_to_save" and isinstance(value, list):
            harmless = set(map(str, value)) <= set(HEADS)
        else:
            harmless = key in own or key in OF_NO_CONSEQUENCE or not value or (key, value) == ("bias", "none")
        if not harmless:
            raise DataError(f"{path}: {key[:60]} is {json_name(value)}, which seedbed does not serve", MERGE)
    for key in (item.name for item in fields(kind) if item.default is MISSING):
        if key not in values:
            raise CorruptionError(f"{path}: {key} is missing")
    config: File = make_record(kind, {key: values[key] for key in own if key in values}, f"{path}: ")
    if isinstance(config, LoraFile) and not 1 <= config.r <= MOST_RANK:
        raise DataError(f"{path}: r must be between 1 and {MOST_RANK:,}, got {config.r}")
    return config


def gives_scores(folder: Path) -> bool:
    """Whether an adapter's folder holds the score head of a reward model, too. DataError as `read_config` has it."""
    read_config(folder)
    saved = read_json(folder / CONFIG).get("modules_to_save")
    return isinstance(saved, list) and "score" in saved
