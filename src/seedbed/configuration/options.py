"""The keys of a config class, by their dotted paths, and advice for a key that there is not."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import functools
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from docstring_parser import parse_from_object
from jsonargparse import set_parsing_settings

from seedbed.configuration.hints import alternatives, is_config, words
from seedbed.errors import ConfigError

set_parsing_settings(docstring_parse_attribute_docstrings=True)

ELSEWHERE = {
    "lr": ("optimizer.matrix_rate", "optimizer.rate"),
    "learning_rate": ("optimizer.matrix_rate", "optimizer.rate"),
    "lr_scheduler": ("schedule.name",),
    "optim": ("optimizer.name",),
    "weight_decay": ("optimizer.weight_decay",),
    "batch_size": ("train.batch", "batch"),
    "block_size": ("model.context", "data.length", "length"),
    "max_seq_length": ("model.context", "data.length", "length"),
    "max_seq_len": ("model.context", "data.length", "length"),
    "sequence_len": ("model.context", "data.length", "length"),
    "cutoff_len": ("model.context", "data.length", "length"),
    "max_position_embeddings": ("model.context",),
    "n_positions": ("model.context",),
    "n_embd": ("model.width",),
    "hidden_size": ("model.width",),
    "d_model": ("model.width",),
    "n_layer": ("model.layers",),
    "num_hidden_layers": ("model.layers",),
    "n_head": ("model.heads",),
    "num_attention_heads": ("model.heads",),
    "num_key_value_heads": ("model.kv_heads",),
    "intermediate_size": ("model.ff_width",),
    "gradient_accumulation_steps": ("train.micro_batch",),
    "grad_accum": ("train.micro_batch",),
    "per_device_train_batch_size": ("train.micro_batch",),
    "max_steps": ("train.steps",),
    "max_iters": ("train.steps",),
    "num_iterations": ("passes", "train.steps"),
    "num_train_epochs": ("train.epochs",),
    "eval_interval": ("train.validate_every",),
    "eval_steps": ("train.validate_every",),
    "save_steps": ("train.checkpoint.steps",),
    "logging_steps": ("train.log_every",),
    "log_interval": ("train.log_every",),
    "grad_clip": ("train.clip",),
    "max_grad_norm": ("train.clip",),
    "warmup_steps": ("schedule.warmup",),
    "warmup_iters": ("schedule.warmup",),
    "warmup_ratio": ("schedule.warmup",),
    "lr_scheduler_type": ("schedule.name",),
    "dtype": ("train.precision",),
    "torch_dtype": ("train.precision",),
    "mixed_precision": ("train.precision",),
    "bf16": ("train.precision bf16",),
    "fp16": ("train.precision fp16",),
    "wandb_log": ("track wandb",),
    "report_to": ("track",),
    "init_from": ("init",),
    "output_dir": ("out",),
    "out_dir": ("out",),
    "gradient_checkpointing": ("train.recompute",),
    "resume_from_checkpoint": ("resume",),
    "early_stopping_patience": ("train.patience",),
    "load_best_model_at_end": ("train.select best",),
    "dataset": ("data.tokens", "data", "source"),
    "datasets": ("data.tokens", "data", "source"),
    "dataset_name": ("data.tokens", "data", "source"),
    "train_file": ("data.tokens", "data", "source"),
    "eval_dataset": ("validation",),
    "val_set_size": ("validation_fraction",),
    "model_name_or_path": ("model", "init"),
    "base_model": ("base", "model", "init"),
    "input": ("source",),
    "start": ("prompt",),
    "max_new_tokens": ("max_tokens",),
    "num_predict": ("max_tokens",),
    "model_type": ("kind",),
    # Adapters: peft, axolotl, LLaMA-Factory.
    "finetuning_type": ("method",),
    "use_peft": ("method lora",),
    "use_dora": ("method dora",),
    "load_in_4bit": ("method qlora",),
    "r": ("lora.rank",),
    "lora_r": ("lora.rank",),
    "lora_rank": ("lora.rank",),
    "lora_alpha": ("lora.alpha",),
    "lora_dropout": ("lora.dropout",),
    "target_modules": ("lora.targets",),
    "lora_target_modules": ("lora.targets",),
    "lora_target": ("lora.targets",),
    "use_rslora": ("lora.rank_stabilized",),
    "loraplus_lr_ratio": ("lora.up_rate",),
    "num_virtual_tokens": ("prompts.tokens",),
    "encoder_hidden_size": ("prompts.hidden",),
    "neftune_noise_alpha": ("noise",),
    # Preferences: trl, LLaMA-Factory.
    "loss_type": ("loss",),
    "pref_loss": ("loss",),
    "rpo_alpha": ("likelihood",),
    "simpo_gamma": ("target_margin",),
    "desirable_weight": ("wanted_weight",),
    "undesirable_weight": ("unwanted_weight",),
    "center_rewards_coefficient": ("centring",),
    # Rewards: trl, verl.
    "num_generations": ("group",),
    "max_completion_length": ("max_tokens",),
    "response_length": ("max_tokens",),
    "max_prompt_length": ("prompt_tokens",),
    "beta": ("kl",),
    "kl_coef": ("kl",),
    "init_kl_coef": ("kl",),
    "target_kl": ("kl_target",),
    "epsilon": ("clip_low", "clip_high", "clip"),
    "epsilon_high": ("clip_high",),
    "cliprange": ("clip", "clip_low", "clip_high"),
    "cliprange_value": ("value_clip",),
    "vf_coef": ("value_weight",),
    "num_ppo_epochs": ("passes",),
    "gamma": ("discount", "outliers", "target_margin"),
    "lam": ("decay",),
    "scale_rewards": ("scale",),
    "importance_sampling_level": ("level",),
    "mask_truncated_completions": ("leave_out_cut",),
    # Merging: mergekit.
    "merge_method": ("method",),
    "lambda": ("scale",),
    "layer_range": ("layers",),
}
"""What people who come from other trainers type, and our keys for it, some with the value that it means."""

ACCUMULATION = "{key} counts rows at once: train.batch 64 of one device, accumulated 4 times, is {key} 16."
WARMUP = "{key} is a share of the steps, not their number: 10 of 1,000 steps are {key} 0.01."
OTHER_UNITS = {
    "gradient_accumulation_steps": ACCUMULATION,
    "grad_accum": ACCUMULATION,
    "warmup_steps": WARMUP,
    "warmup_iters": WARMUP,
}
"""How the number that goes there follows from theirs, where it is another one."""

ONLY_ANSWERS = ("curriculum", "Of a conversation only what the assistant says is learned.")
PACKED = ("curriculum", "Conversations are always packed, and none sees another.")
RULES = (
    "rewards",
    "Rewards have weights: --rewards '{\"numeric\": 1}'. "
    "Functions of yours: --own_rewards FILE --rewards '{\"NAME\": 1}'.",
)
DIFFERENT = {
    "ref_model": ("beta", "The reference is the model as the run begins."),
    "precompute_ref_log_probs": ("beta", "What the reference makes of the data is always computed once."),
    "label_smoothing": ("flipped", "Write --loss conservative --flipped 0.1, or --loss robust."),
    "assistant_only_loss": ONLY_ANSWERS,
    "completion_only_loss": ONLY_ANSWERS,
    "train_on_inputs": ONLY_ANSWERS,
    "packing": PACKED,
    "sample_packing": PACKED,
    "reward_funcs": RULES,
    "reward_weights": RULES,
}
"""What they type and no key of ours stands for: a key of the stages that it concerns, and what to do instead."""

VALUES_ELSEWHERE = {
    "bpe": "byte_pair",
    "bbpe": "byte_pair",
    "byte_level_bpe": "byte_pair",
    "gpt2": "byte_pair",
    "tiktoken": "byte_pair",
    "sentencepiece": "sentence_piece",
    "spm": "sentence_piece",
    "unigram": "sentence_piece (its algorithm is unigram, if left out)",
    "passthrough": "stack",
    "dpo": "sigmoid",
    "cdpo": "conservative",
    "char": "characters",
    "chars": "characters",
    "character": "characters",
    "byte": "bytes",
    "bfd": "best_fit",
    "wrapped": "concatenate",
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "float32": "fp32",
}
"""What they type as a value, and ours for it."""


TRUTHS = {"on": ("true", "yes", "on", "1"), "off": ("false", "no", "off", "0")}
"""What YAML and other tools' users write for the words on and off."""


@dataclass(frozen=True)
class Option:
    """One key of a config class, by its dotted path."""

    path: str
    hint: Any
    default: Any
    """MISSING when the key must be given."""
    about: str
    group: type | None
    """The dataclass below this key, if it is a group."""

    @property
    def entry(self) -> type | None:
        """The dataclass of each entry, if the value is a list of groups."""
        lists = [part for part in alternatives(self.hint) if get_origin(part) is list]
        return next((get_args(part)[0] for part in lists if is_config(get_args(part)[0])), None)

    @property
    def nullable(self) -> bool:
        return self.default is None or types.NoneType in alternatives(self.hint)

    @property
    def takes_text_or_null(self) -> bool:
        """Whether a text or a path may be given, or none; jsonargparse then reads the text as YAML."""
        return self.nullable and set(alternatives(self.hint)) <= {str, Path, types.NoneType}

    @property
    def allowed(self) -> str:
        """What may be written here, in words."""
        said = words(self.hint)
        return f"{said} or null" if self.nullable and "null" not in said else said

    @property
    def choices(self) -> list[str]:
        """Every value there is, when they can be counted; for completion."""
        found: list[str] = []
        for part in alternatives(self.hint):
            if part is bool:
                found += ["true", "false"]
            elif get_origin(part) is Literal:
                found += map(str, get_args(part))
            elif isinstance(part, type) and issubclass(part, enum.Enum):
                found += list(part.__members__)
        return found

    def truth_as_word(self, value: str) -> str | None:
        """The word on or off for a truth value, where that is one of the choices: YAML reads off as false."""
        return next((word for word, all_ in TRUTHS.items() if word in self.choices and value.lower() in all_), None)

    def called_here(self, value: str) -> str | None:
        """What another tool's word for one of the choices is here."""
        ours = VALUES_ELSEWHERE.get(value.lower().replace("-", "_"))
        return ours if ours and ours.partition(" ")[0] in self.choices else None


@functools.cache
def options(cls: type, prefix: str = "") -> dict[str, Option]:
    """Every key of a config class and of the groups below it, in order."""
    hints, about = get_type_hints(cls), docs(cls)
    found: dict[str, Option] = {}
    for spec in dataclasses.fields(cls):
        if not spec.init:
            continue
        default = spec.default_factory() if spec.default_factory is not MISSING else spec.default
        hint, path = hints[spec.name], prefix + spec.name
        group = next((part for part in alternatives(hint) if is_config(part)), None)
        found[path] = Option(path, hint, default, about.get(spec.name, ""), group)
        if group is not None:
            found |= options(group, path + ".")
    return found


@functools.cache
def docs(cls: type) -> dict[str, str]:
    """The docstring below each field of a config class, inherited ones too."""
    found: dict[str, str] = {}
    for part in reversed(cls.__mro__):
        if is_config(part):
            params = parse_from_object(part).params
            found |= {item.arg_name: " ".join((item.description or "").split()) for item in params}
    return found


def find_option(keys: Mapping[str, Option], name: str, prog: str) -> Option:
    """The option that `--name` sets. Raises ConfigError with the nearest names."""
    plain = name.removesuffix("+")
    option = keys.get(plain) or keys.get(plain + "_")
    if option is not None and option.group and not option.nullable:
        inside = ", ".join(f"--{path}" for path in keys if path.startswith(plain + "."))
        raise ConfigError(f"--{plain} is a group of keys: {inside}")
    if option is not None:
        return option
    for path, candidate in keys.items():
        if plain.startswith(path + ".") and dict in {get_origin(part) for part in alternatives(candidate.hint)}:
            return candidate
    raise unknown_key(keys, f"unknown option --{plain}", plain, prog, "--")


def unknown_key(keys: Mapping[str, Option], problem: str, key: str, prog: str, dashes: str = "") -> ConfigError:
    """The error for a key that there is not: `problem`, and the nearest keys there are."""
    names = {flag(path): path for path, option in keys.items() if not option.group or option.nullable}
    theirs = key.rpartition(".")[2].replace("-", "_")
    ours = [name for name in ELSEWHERE.get(theirs, ()) if name.partition(" ")[0] in names]
    if ours:
        unit = OTHER_UNITS.get(theirs, "").format(key=ours[0]) or None
        apart = ", in another unit" if unit else ""
        return ConfigError(f"{problem}; here it is {' or '.join(dashes + name for name in ours[:2])}{apart}", unit)
    concerns, instead = DIFFERENT.get(theirs, ("", ""))
    if concerns in names:
        return ConfigError(problem, instead)
    written = key.replace("-", "_")
    alike = [name for name in names if name.rpartition(".")[2] == written.rpartition(".")[2]]
    near = alike if "." not in key else difflib.get_close_matches(written, alike, cutoff=0)
    near = (near or [name for name in difflib.get_close_matches(written, names, n=5) if _is_alike(written, name)])[:2]
    hint = f"; did you mean {' or '.join(dashes + name for name in near)}?" if near else ""
    beside = [name for name in names if name.rpartition(".")[0] == key.rpartition(".")[0]] or list(names)
    fix = f"Allowed here: {', '.join(dashes + name for name in beside)}" if len(beside) <= 12 else None
    return ConfigError(problem + hint, fix or f"{prog} --help explains each.")


def changed(config: Any, settings: Mapping[str, Any]) -> Any:
    """A config with other values. ConfigError, with the nearest names, for a setting that there is not."""
    there = {each.name for each in dataclasses.fields(config)}
    if (wrong := next((name for name in settings if name not in there), None)) is not None:
        kind: Any = type(config)
        raise unknown_key(options(kind), f"there is no setting {wrong!r}", wrong, "seedbed generate")
    return dataclasses.replace(config, **settings)


def _is_alike(written: str, name: str) -> bool:
    """Whether the words behind the groups are alike; that the groups are says nothing."""
    return difflib.SequenceMatcher(None, written.rpartition(".")[2], name.rpartition(".")[2]).ratio() >= 0.7


def flag(path: str) -> str:
    """A key as an option is called: a field named for_ is written --for."""
    return path.rstrip("_")
