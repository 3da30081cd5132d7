"""A model for a tokenizer that has more tokens than its own.

Shape suffixes: V ids, N new ids, D width of a row.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from seedbed.errors import DataError
from seedbed.model.transformer import Transformer
from seedbed.tokenizers.tokenizer import Tokenizer

SPREAD = 0.01
"""Of new rows around the mean, as a share of how far the old ones spread in each coordinate."""


def grow_vocabulary(model: Transformer, own: Tokenizer, larger: Tokenizer) -> Transformer:
    """The model with rows for the ids that only the larger tokenizer has; the same rows at every call.

    New rows of embeddings, head and value embeddings are the mean of the old ones and a little noise, so that new
    tokens begin as likely as an average one and the old keep their order (Hewitt 2021,
    https://nlp.stanford.edu/~johnhew/vocab-expansion.html). DataError unless every old id stands for the same token.
    """
    if not larger.extends(own):
        raise DataError(
            f"the tokenizer of {larger.vocab_size:,} tokens does not extend the model's, of {own.vocab_size:,}: the "
            "same ids mean other tokens",
            "Only a tokenizer that was made by adding tokens to the model's own can be taken.",
        )
    config = replace(
        model.config,
        vocab_size=larger.vocab_size,
        pad_id=larger.pad_id,
        bos_id=larger.bos_id,
        eos_id=larger.eos_id,
    )
    more = larger.vocab_size - own.vocab_size
    chance = torch.Generator().manual_seed(0)
    weights = {
        name: _grown(weight.detach(), more, chance) if has_a_row_for_each_token(name) else weight.detach()
        for name, weight in model.named_parameters()
    }
    return Transformer.of_weights(config, weights).train(model.training)


def has_a_row_for_each_token(name: str) -> bool:
    """Whether a weight of this name has."""
    return name in ("embedding.weight", "head.weight") or name.startswith("value_embeddings.")


def _grown(rows_VD: Tensor, more: int, chance: torch.Generator) -> Tensor:
    spread_D, mean_D = torch.std_mean(rows_VD.float(), dim=0)
    noise_ND = torch.randn(more, rows_VD.shape[1], generator=chance).to(rows_VD.device)
    return torch.cat([rows_VD, (mean_D + SPREAD * spread_D * noise_ND).to(rows_VD.dtype)])
