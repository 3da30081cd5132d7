"""A plain Hugging Face folder as a model of ours: `config.json` and safetensors, of a class that we know, and what
tokenizer it holds."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from seedbed.errors import DataError, SeedbedError
from seedbed.model.config import ModelConfig
from seedbed.model.huggingface.classes import read_huggingface_config
from seedbed.model.huggingface.peer_class import PeerClass
from seedbed.model.names import shapes_of_theirs, to_ours
from seedbed.model.transformer import Transformer, weight_shapes
from seedbed.model.vocabulary import has_a_row_for_each_token
from seedbed.model.weights import INDEX, WEIGHTS, check_shapes, one_dtype, read_headers, read_weights
from seedbed.runs import read_json
from seedbed.tokenizers.foreign import FILES, read_foreign
from seedbed.tokenizers.tokenizer import Tokenizer

CONFIG = "config.json"
BUFFERS = re.compile(r"\.(attn\.(masked_)?bias|attention\.(masked_)?bias|rotary_emb\.inv_freq)$")
"""What older versions of transformers stored beside the weights: masks and frequencies that follow from the config."""
SPARE_ROWS = 1024
"""Of embeddings and head: fewer than so many beyond the tokenizer's ids only round their number up, as in Qwen3."""


def import_folder(folder: Path, brought: Tokenizer | None = None) -> tuple[Transformer, Tokenizer]:
    """The model of a folder that `save_pretrained` or the hub made, in evaluation mode, with its weights as stored, and
    the folder's tokenizer, or, where it holds none, the one that is brought along.

    Padding, beginning and end are the tokenizer's. Rows that round the number of the folder's own ids up are left out.
    DataError where there is no tokenizer or it is one of other sizes, and as `import_model`.
    """
    own = read_foreign(folder) if any((folder / name).is_file() for name in FILES) else None
    tokenizer = own or brought
    if tokenizer is None:
        raise DataError(
            f"{folder} holds no tokenizer ({' or '.join(FILES)})",
            "Copy its model's tokenizer there: AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER).",
        )
    ids, rows = tokenizer.vocab_size, import_config(folder).vocab_size
    assert rows is not None  # it is resolved
    if not ids <= rows < ids + (SPARE_ROWS if own else 1):
        raise DataError(
            f"{folder}: the model has {rows:,} token ids, the tokenizer {'in it' if own else 'given'} {ids:,}",
            "Put the tokenizer that the model was trained with into the folder.",
        )
    model = import_model(folder)
    config = replace(
        model.config, vocab_size=ids, pad_id=tokenizer.pad_id, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id
    )
    weights = {
        name: weight.detach()[:ids].clone() if rows > ids and has_a_row_for_each_token(name) else weight.detach()
        for name, weight in model.named_parameters()
    }
    return Transformer.of_weights(config, weights).eval(), tokenizer


def import_model(folder: Path) -> Transformer:
    """The model of such a folder alone, whatever tokenizer it holds.

    Raises DataError, naming the key, where the architecture is none of ours, and CorruptionError for a broken file.
    """
    config, peer = _read_config(folder)
    if not any((folder / name).is_file() for name in (WEIGHTS, INDEX)):
        raise DataError(
            f"{folder} holds no {WEIGHTS}: other files of weights can hold code, and are not read",
            "Write it with transformers: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(OTHER).",
        )
    shapes = weight_shapes(config)
    promised = shapes_of_theirs(shapes, peer.table, config.head_width)
    base = next(iter(promised)).partition(".")[0]  # as in "transformer.wte.weight", which GPT-2's own file leaves out
    stored = {
        name if name in promised or f"{base}.{name}" not in promised else f"{base}.{name}": tensor
        for name, tensor in read_headers(folder).items()
        if not BUFFERS.search(name) and not (config.tied and name in ("lm_head.weight", "embed_out.weight"))
    }
    check_shapes(promised, {name: tensor.shape for name, tensor in stored.items()}, folder)
    one_dtype(folder, stored)
    weights = to_ours(read_weights(stored), shapes, peer.table, config.head_width)
    return Transformer.of_weights(config, weights).eval()


def import_config(folder: Path) -> ModelConfig:
    """The resolved config that the `config.json` of such a folder describes. DataError where it is none of ours."""
    return _read_config(folder)[0]


def _read_config(folder: Path) -> tuple[ModelConfig, PeerClass]:
    described = read_json(folder / CONFIG)
    if (quantized := described.get("quantization_config")) is not None:
        by = quantized.get("quant_method", "another tool") if isinstance(quantized, dict) else "another tool"
        raise DataError(
            f"{folder} is quantized by {str(by)[:60]}, which seedbed does not read",
            "Take the model that it was made of, and seedbed quantize.",
        )
    try:
        return read_huggingface_config(described)
    except SeedbedError as error:
        raise DataError(f"{folder / CONFIG} cannot be imported: {error.problem}") from error
