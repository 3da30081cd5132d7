"""A model grows for a tokenizer with more tokens, and forgets nothing."""

from __future__ import annotations

import pytest
import torch

from seedbed.errors import ConfigError, DataError
from seedbed.model.config import ModelConfig
from seedbed.model.vocabulary import grow_vocabulary
from seedbed.tokenizers import byte_pair
from seedbed.tokenizers import bytes as byte_tokenizer
from tests.random_models import random_model

OWN = byte_tokenizer.build()
LARGER = OWN.with_tokens(["<tool>", "</tool>"])
TEXT = torch.tensor([OWN.encode("The seed lies in dark soil, näh.")])


@pytest.mark.parametrize("choices", [{}, {"tied": True}, {"value_embeddings": True, "positions": "learned"}])
@torch.no_grad()
def test_what_the_model_said_of_old_tokens_it_still_says(choices):
    model = random_model(tokenizer=OWN, **choices)
    grown = grow_vocabulary(model, OWN, LARGER)
    assert grown.config.vocab_size == LARGER.vocab_size == OWN.vocab_size + 2
    torch.testing.assert_close(grown(TEXT)[..., : OWN.vocab_size], model(TEXT), rtol=0, atol=1e-6)
    assert grown(torch.tensor([[*LARGER.encode("a"), LARGER.vocab_size - 1]])).isfinite().all()


@torch.no_grad()
def test_new_rows_lie_near_the_mean_of_the_old_and_differ():
    model = random_model(tokenizer=OWN)
    grown = grow_vocabulary(model, OWN, LARGER)
    for name in ("embedding.weight", "head.weight"):
        old, rows = model.get_parameter(name), grown.get_parameter(name)
        assert torch.equal(rows[: len(old)], old)
        away = (rows[len(old) :] - old.mean(0)) / old.std(0)
        assert 0.003 < away.std() < 0.03 and away.abs().max() < 0.05
        assert not torch.equal(rows[-1], rows[-2])
    again = grow_vocabulary(model, OWN, LARGER)
    assert torch.equal(again.embedding.weight, grown.embedding.weight)


def test_a_tokenizer_whose_ids_mean_other_tokens_is_refused():
    other = byte_pair.train(["the cat sat on the mat " * 50], 275)
    with pytest.raises(DataError, match="does not extend the model's, of 263"):
        grow_vocabulary(random_model(tokenizer=OWN), OWN, other)
    with pytest.raises(DataError, match="does not extend"):
        grow_vocabulary(random_model(tokenizer=LARGER), LARGER, OWN)


def test_special_ids_are_the_tokenizers():
    assert ModelConfig(eos_id=OWN.eos_id).with_tokenizer(OWN).eos_id == OWN.eos_id
    with pytest.raises(ConfigError, match="eos_id is 5, but the tokenizer's is 259"):
        ModelConfig(eos_id=5).with_tokenizer(OWN)
