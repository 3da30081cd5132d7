"""Embedding skips, value embeddings, dropout, the soft cap and how weights begin."""

from __future__ import annotations

import pytest
import torch

from seedbed.model.config import ModelConfig
from seedbed.model.transformer import SoftCap, Transformer
from seedbed.optim.groups import parameter_kinds
from tests.random_masks import causal_attention
from tests.random_models import GQA, random_model

TOKENS = torch.arange(24).view(2, 12)


@torch.no_grad()
def test_an_embedding_skip_that_takes_nothing_up_changes_nothing():
    model, plain = random_model(embedding_skip=True).double(), random_model().double()
    plain.load_state_dict({n: w for n, w in model.state_dict().items() if not n.startswith("skips.")})
    for skip in model.skips:
        skip.shares.copy_(torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(model(TOKENS), plain(TOKENS), rtol=0, atol=0)
    model.skips[1].shares[1] = 0.5
    assert (model(TOKENS) - plain(TOKENS)).abs().max() > 1e-2


@torch.no_grad()
def test_each_block_reads_its_share_of_the_embedding():
    model = random_model(embedding_skip=True, layers=1).double()
    model.skips[0].shares.copy_(torch.tensor([0.25, 0.5]))
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda block, arguments: seen.append(arguments[0]))
    model(TOKENS)
    torch.testing.assert_close(seen[0], 0.75 * model.embedding(TOKENS), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("layers", "those"), [(1, [0]), (2, [1]), (5, [0, 2, 4]), (6, [1, 3, 5])])
def test_every_second_block_has_a_value_embedding_the_last_among_them(layers, those):
    model = random_model(value_embeddings=True, layers=layers)
    gates = [n for n, block in enumerate(model.blocks) if block.attention.value_gate is not None]
    tables = [n for n, table in enumerate(model.value_embeddings) if isinstance(table, torch.nn.Embedding)]
    assert gates == tables == those


@torch.no_grad()
def test_values_take_up_the_embedding_of_their_token_by_twice_the_sigmoid_of_the_gate():
    """With one position attention returns its value: the output is that of value plus gated embedding."""
    model = random_model(value_embeddings=True, layers=1).double()
    attention, table = model.blocks[0].attention, model.value_embeddings[0].weight
    x = model.blocks[0].attention_norm(model.embedding(torch.tensor([[7]])))
    values = model.value_embeddings[0](torch.tensor([[7]]))
    got = attention(x, model.positions.angles(1), causal_attention(1, 1), values)
    gate = 2 / (1 + torch.exp(-(attention.value_gate.gate.weight @ x[0, 0, :32])))
    value = attention.value.weight @ x[0, 0] + (gate[:, None] * table[7].view(2, 8)).flatten()
    shared = value.view(2, 1, 8).expand(2, 2, 8).flatten()  # each key/value head serves two query heads
    torch.testing.assert_close(got[0, 0], attention.output.weight @ shared, rtol=0, atol=1e-12)


def test_value_embeddings_and_learned_positions_are_moved_as_embeddings_and_shares_as_vectors():
    model = random_model(value_embeddings=True, positions="learned", embedding_skip=True)
    kinds = parameter_kinds(model)
    assert {id(w) for w in kinds["embedding"]} == {
        id(w) for w in (model.embedding.weight, model.positions.table.weight, model.value_embeddings[1].weight)
    }
    assert any(weight is model.skips[0].shares for weight in kinds["vector"])


@torch.no_grad()
def test_dropout_leaves_out_its_share_while_training_and_nothing_else():
    model = random_model(dropout=0.5)
    assert torch.equal(model(TOKENS), random_model()(TOKENS))
    model.train()
    x = torch.ones(100, 100)
    assert (model.dropout(x) == 0).float().mean().item() == pytest.approx(0.5, abs=0.03)
    torch.manual_seed(1)
    first = model(TOKENS)
    torch.manual_seed(1)
    assert torch.equal(model(TOKENS), first)
    assert not torch.equal(model(TOKENS), first)


def test_a_soft_cap_bends_large_logits_and_leaves_small_ones():
    logits = torch.tensor([0.01, -0.01, 1000.0, -1000.0, 5.0], dtype=torch.float64)
    got = SoftCap(15.0)(logits)
    torch.testing.assert_close(got[:2], logits[:2], rtol=1e-6, atol=0)
    assert got[2] == 15 and got[3] == -15
    assert got[4].item() == pytest.approx(15 * torch.tanh(torch.tensor(1 / 3)).item())
    assert random_model(logit_softcap=0.5)(TOKENS).abs().max() <= 0.5


def test_gpt2_initialisation_has_one_spread_and_smaller_projections():
    torch.manual_seed(0)
    sizes = {"vocab_size": 500, "layers": 8, "width": 64, "context": 256, "positions": "learned"}
    model = Transformer(ModelConfig(**sizes, initial_std=0.02, zero_projections=False))
    block = model.blocks[0]
    for table in (model.embedding, model.positions.table, model.head, block.attention.query, block.feedforward.up):
        assert table.weight.std().item() == pytest.approx(0.02, rel=0.05)
    for projection in (block.attention.output, block.feedforward.down):
        assert projection.weight.std().item() == pytest.approx(0.02 / 16**0.5, rel=0.05)


def test_zero_projections_hold_for_every_architecture():
    choices = {"activation": "gelu", "feedforward_bias": True, "attention_bias": True, "value_embeddings": True}
    model = Transformer(ModelConfig(vocab_size=50, **GQA, **choices))
    for block in model.blocks:
        assert not block.attention.output.weight.any() and not block.feedforward.down.weight.any()
    assert not model.head.weight.any()
