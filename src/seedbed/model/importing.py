"""A plain Hugging Face folder as a model of ours: `config.json` and safetensors, of a class that we know.

Nothing of its tokenizer is looked at.
"""

from __future__ import annotations

import re
from pathlib import Path

from seedbed.errors import DataError, SeedbedError
from seedbed.model.huggingface.classes import read_huggingface_config
from seedbed.model.names import shapes_of_theirs, to_ours
from seedbed.model.transformer import Transformer, weight_shapes
from seedbed.model.weights import check_shapes, read_headers, read_weights
from seedbed.runs import read_json

BUFFERS = re.compile(r"\.(attn\.(masked_)?bias|attention\.(masked_)?bias|rotary_emb\.inv_freq)$")
"""What older versions of transformers stored beside the weights: masks and frequencies that follow from the config."""


def import_model(folder: Path) -> Transformer:
    """The model of a folder that `save_pretrained` or the hub made, in evaluation mode, with its weights as stored.

    Raises DataError, naming the key, where the architecture is none of ours, and CorruptionError for a broken file.
    """
    try:
        config, peer = read_huggingface_config(read_json(folder / "config.json"))
    except SeedbedError as error:
        raise DataError(f"{folder / 'config.json'} cannot be imported: {error.problem}") from error
    shapes = weight_shapes(config)
    promised = shapes_of_theirs(shapes, peer.table, config.head_width)
    base = next(iter(promised)).partition(".")[0]  # as in "transformer.wte.weight", which GPT-2's own file leaves out
    stored = {
        name if name in promised or f"{base}.{name}" not in promised else f"{base}.{name}": tensor
        for name, tensor in read_headers(folder).items()
        if not BUFFERS.search(name) and not (config.tied and name in ("lm_head.weight", "embed_out.weight"))
    }
    check_shapes(promised, {name: tensor.shape for name, tensor in stored.items()}, folder)
    weights = to_ours(read_weights(stored), shapes, peer.table, config.head_width)
    return Transformer.of_weights(config, weights).eval()
