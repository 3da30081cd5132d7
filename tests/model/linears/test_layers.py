"""Layers in few bits stand in the places of a model's own, and compute what the matrix computes that they stand for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seedbed.model.linears.int8 import Int8Linear, Int8Matrix
from seedbed.model.linears.layers import StoredEmbedding, StoredLinear, put, quantise, storable, storages, stored_layers
from seedbed.model.linears.storage import Storage
from tests.random_models import random_model

AS_THEY_COME = Storage(scheme="int8")
BOTH = Storage(scheme="int8", activations="int8")
EVERYTHING = {"value_embeddings": True, "positions": "learned", "experts": 3, "experts_active": 2, "expert_width": 20}


def replaced(model, storage=AS_THEY_COME):
    """The model with everything in few bits that may be, and its matrices made whole again."""
    matrices = {
        name: Int8Matrix.of(layer.weight.detach(), storage if isinstance(layer, nn.Linear) else AS_THEY_COME)
        for name, layer in storable(model).items()
    }
    for name, matrix in matrices.items():
        layer = model.get_submodule(name)
        bias = layer.bias if isinstance(layer, nn.Linear) else None
        put(model, name, matrix, None if bias is None else bias.detach())
    return model, matrices


def tokens(model):
    return torch.randint(0, model.config.vocab_size, (2, 30), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "config",
    [{}, {"tied": True}, {"attention_bias": True}, EVERYTHING],
    ids=["own head", "tied head", "biases", "tables and experts"],
)
@torch.no_grad()
def test_a_model_in_few_bits_computes_what_its_matrices_do(config):
    model, matrices = replaced(random_model(**config))
    plain = random_model(**config)
    for name, matrix in matrices.items():
        plain.get_submodule(name).weight.copy_(matrix.dense())
    torch.testing.assert_close(model(tokens(model)), plain(tokens(plain)), atol=1e-5, rtol=1e-5)
    assert torch.equal(model.head_weight, matrices["head" if not model.config.tied else "embedding"].dense())


def test_gates_routers_and_learned_positions_stay():
    names = storable(random_model(**EVERYTHING))
    assert "embedding" in names and "value_embeddings.1" in names and "blocks.0.feedforward.up" in names
    assert not [name for name in names if "gate" in name and "feedforward" not in name]
    assert not [name for name in names if "router" in name or "positions" in name]


def test_a_tied_head_is_the_table_itself():
    model, _ = replaced(random_model(tied=True))
    assert isinstance(model.embedding, StoredEmbedding) and isinstance(model.head, StoredLinear)
    assert model.head.matrix is model.embedding.matrix
    assert "head" not in stored_layers(model) and storages(model)["embedding"] == AS_THEY_COME


@torch.no_grad()
def test_what_is_rounded_when_it_is_opened_is_what_is_stored():
    """`--weights int8` and a folder of int8 round the layers alike."""
    opened, (stored, _) = quantise(random_model()), replaced(random_model(), BOTH)
    for name, layer in opened.named_modules():
        if isinstance(layer, Int8Linear):
            assert torch.equal(layer.weight, stored.get_submodule(name).weight)
    assert isinstance(stored.head, Int8Linear)


@torch.no_grad()
def test_a_row_of_nought_and_rows_of_any_size_are_kept():
    weight = torch.stack([torch.zeros(40), torch.full((40,), 3e-30), torch.linspace(-1e30, 1e30, 40)])
    matrix = Int8Matrix.of(weight, AS_THEY_COME)
    torch.testing.assert_close(matrix.dense(), weight, rtol=0, atol=0.5e30 / 127)
    assert torch.equal(matrix.dense()[0], weight[0]) and matrix.dense().isfinite().all()
    assert torch.equal(matrix.rows(torch.tensor([[2, 0]])), matrix.dense()[torch.tensor([[2, 0]])])
