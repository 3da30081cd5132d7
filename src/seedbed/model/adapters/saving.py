"""A trained adapter as a folder in peft's format, with our manifest and card beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from seedbed.model.adapters.folder import OVER, SCORE, WEIGHTS
from seedbed.model.adapters.peft_config import CONFIG
from seedbed.model.transformer import Transformer
from seedbed.model.weights import write_file
from seedbed.runs import Inputs, Manifest, new_folder, open_folder, write_card, write_json
from seedbed.tokenizers.tokenizer import Tokenizer


def save_adapter(
    folder: Path,
    model: Transformer,
    tokenizer: Tokenizer,
    *,
    inputs: Inputs,
    card: Mapping[str, str],
    overwrite: bool = False,
) -> Manifest:
    """Writes the folder of what a model wears, or nothing; with the score head of a reward model, as peft keeps one.
    `inputs`: what it was made of, the base as "model"."""
    adapter = model.adapter
    assert adapter is not None
    values, tensors = adapter.files(model)
    if model.score is not None:
        values |= {"task_type": "SEQ_CLS", "modules_to_save": ["score"]}
        tensors[SCORE] = model.score.get_parameter("weight").detach()
    settings = values | ({OVER: adapter.over} if adapter.over else {})
    with new_folder(folder, "adapter", inputs=inputs, config=settings, overwrite=overwrite) as staging:
        write_json(staging / CONFIG, values)
        write_file(staging / WEIGHTS, tensors)
        tokenizer.save(staging, model.config.context)
        write_card(staging, f"{folder.parent.name}/{folder.name}", card)
    return open_folder(folder, "adapter")
