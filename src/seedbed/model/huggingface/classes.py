"""The Hugging Face classes that compute our architectures, and what their `config.json` says.

A class is chosen by the config: the first one that has every choice it makes. Where none has, a model folder keeps our
names and holds no `config.json`, so that no other tool misreads it.
"""

from __future__ import annotations

from typing import Any

import torch

from seedbed.errors import DataError
from seedbed.model.config import ModelConfig
from seedbed.model.huggingface.gpt import GPT2_CLASS, GPT_NEOX_CLASS
from seedbed.model.huggingface.llama import ARCEE_CLASS, LLAMA_CLASS, QWEN2_CLASS, QWEN3_CLASS
from seedbed.model.huggingface.mixtures import DOTS1_CLASS, MIXTRAL_CLASS, QWEN3_MOE_CLASS
from seedbed.model.huggingface.peer_class import PeerClass, Values
from seedbed.model.names import OWN, Table
from seedbed.runs import make_record

CLASSES = (
    *(QWEN3_CLASS, QWEN2_CLASS, LLAMA_CLASS, ARCEE_CLASS, GPT2_CLASS, GPT_NEOX_CLASS),
    *(MIXTRAL_CLASS, QWEN3_MOE_CLASS, DOTS1_CLASS),
)
"""Asked in this order."""
SCORING = {peer.name: scoring for peer in CLASSES if (scoring := peer.scoring())}
"""The classes that have a score in place of the vocabulary, by the name of the class of the same blocks."""
ALL = (*CLASSES, *SCORING.values())
NOT_COMPARED = {
    *("dtype", "torch_dtype", "initializer_range", "use_cache", "attention_dropout", "hidden_dropout", "resid_pdrop"),
    *("embd_pdrop", "attn_pdrop", "pad_token_id", "bos_token_id", "eos_token_id"),
    *("router_aux_loss_coef", "output_router_logits", "id2label", "label2id"),
    # Read, or refused, where they are read.
    *("rope_parameters", "rope_scaling", "rope_theta", "rotary_emb_base", "sliding_window", "max_window_layers"),
    *("mlp_only_layers", "layer_types"),
    # May be null; and synonyms.
    *("head_dim", "num_key_value_heads", "n_inner", "hidden_act", "activation_function"),
}
"""Keys of a config.json that are of no consequence for what is computed, or whose value was taken over."""


def find_class(config: ModelConfig) -> PeerClass | None:
    """The class that computes a resolved config, or None."""
    return next((peer for peer in ALL if not peer.missing(config)), None)


def find_table(config: ModelConfig) -> Table:
    """The names that weights of a resolved config have in a model folder."""
    peer = find_class(config)
    return OWN if peer is None else peer.table


def what_no_class_has(config: ModelConfig) -> tuple[PeerClass, list[str]]:
    """The nearest class, and which choices of the config it lacks."""
    classes = SCORING.values() if config.head == "score" else CLASSES
    alike = [peer for peer in classes if ("experts" in peer.choices) == bool(config.experts)]
    nearest = min(alike, key=lambda peer: len(peer.missing(config)))
    return nearest, nearest.missing(config)


def describe_class(config: ModelConfig) -> str:
    """A sentence on what other tools make of a resolved config."""
    if peer := find_class(config):
        return f"The Hugging Face class {peer.name} computes it."
    nearest, lacking = what_no_class_has(config)
    return (
        f"No Hugging Face class computes it: the nearest, {nearest.name}, has no {', no '.join(lacking)}. Its folder "
        "therefore keeps seedbed's own names and holds no config.json; seedbed alone loads it."
    )


def huggingface_config(config: ModelConfig, dtype: torch.dtype) -> dict[str, Any] | None:
    """`config.json` of the class that computes a resolved config, with weights of `dtype`; None where none does."""
    peer = find_class(config)
    if peer is None:
        return None
    stored = str(dtype).removeprefix("torch.")
    return {
        "architectures": [peer.name],
        "model_type": peer.model_type,
        # Written twice, like the rotary frequencies below: older tools read torch_dtype.
        "dtype": stored,
        "torch_dtype": stored,
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
        "pad_token_id": config.pad_id,
        "initializer_range": 0.02,
        "tie_word_embeddings": config.tied,
        "use_cache": True,
        "vocab_size": config.vocab_size,
        **({"id2label": {"0": "score"}, "label2id": {"score": 0}} if config.head == "score" else {}),
        **peer.write(config),
    }


def read_huggingface_config(values: Values) -> tuple[ModelConfig, PeerClass]:
    """The resolved config that a `config.json` of one of the classes describes, and the class.

    SeedbedError, naming the key, for another class and for a choice that seedbed does not have.
    """
    named = values.get("architectures")
    peer = next((peer for peer in ALL if named == [peer.name]), None)
    if peer is None:
        raise DataError(f"architectures is {named}, seedbed knows {', '.join(peer.name for peer in ALL)}")
    values = {**peer.defaults, **values}
    try:
        ours = {
            "vocab_size": values["vocab_size"],
            "tied": values.get("tie_word_embeddings", False),
            "head": "tokens" if peer in CLASSES else "score",
            **{f"{name}_id": _special_id(values, name) for name in ("pad", "bos", "eos")},
            **peer.read(values),
        }
    except KeyError as error:
        raise DataError(f"it has no {error.args[0]}") from error
    except (TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise DataError(f"it has a value that makes no sense: {error}") from error
    config = make_record(ModelConfig, ours, "model.").resolve()
    said = huggingface_config(config, torch.float32)
    assert said is not None and said["architectures"] == [peer.name]
    for key in said.keys() & values.keys() - NOT_COMPARED:
        if said[key] != values[key]:
            raise DataError(f"{key} is {values[key]}, seedbed has only {said[key]}")
    return config, peer


def _special_id(values: Values, name: str) -> Any:
    """The id, or none where no row has it: transformers writes the ids of GPT-2 and Llama for any vocabulary."""
    said = values.get(f"{name}_token_id")
    first = next(iter(said), None) if isinstance(said, list) else said
    return None if isinstance(first, int) and not 0 <= first < values["vocab_size"] else first
