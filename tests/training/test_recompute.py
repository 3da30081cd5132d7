"""What is computed a second time has the bits of the first."""

from __future__ import annotations

import pytest
import torch

from seedbed.model.config import ModelConfig
from seedbed.model.linears import linear
from seedbed.training.recompute import recompute_blocks
from tests.tiny import VOCABULARY, random_rows, records, tiny_model, tiny_trainer, watch_kept

DEEP = ModelConfig(vocab_size=VOCABULARY, layers=3, width=32, heads=2, ff_width=128, context=32, pad_id=0).resolve()


@pytest.mark.parametrize("what", ["full", "selective"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_that_recomputes_has_the_bits_of_one_that_does_not(what, precision, tmp_path):
    runs = [
        tiny_trainer(tmp_path / name, model=DEEP, recompute=name, precision=precision, steps=4)
        for name in ("none", what)
    ]
    for trainer in runs:
        trainer.train()
    assert records(tmp_path / "none") == records(tmp_path / what)
    for (name, one), (other_name, other) in zip(*(run.model.named_parameters() for run in runs), strict=True):
        assert name == other_name and torch.equal(one, other), name


@pytest.mark.parametrize("what", ["full", "selective"])
def test_so_it_is_with_products_of_onednn(what, tmp_path, monkeypatch):
    monkeypatch.setattr(linear, "WORTH", 0)
    test_a_run_that_recomputes_has_the_bits_of_one_that_does_not(what, "fp32", tmp_path)


@pytest.mark.parametrize("what", ["full", "selective"])
def test_dropout_drops_the_same_the_second_time(what):
    gradients = []
    for how in ("none", what):
        model = tiny_model(DEEP)
        for block in model.blocks:
            block.feedforward.down = torch.nn.Sequential(block.feedforward.down, torch.nn.Dropout(0.5))
        if how != "none":
            recompute_blocks(model, how)
        torch.manual_seed(1)
        model(random_rows(2).tokens_NT).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    assert len(gradients[0]) > 20 and all(map(torch.equal, *gradients))


def kept(what: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes that a forward pass leaves for the backward pass, weights aside."""
    model = tiny_model(DEEP)
    if what != "none":
        recompute_blocks(model, what)
    kept = watch_kept(model, monkeypatch)
    loss = model.hidden(random_rows(8, 32).tokens_NT).sum()
    left = kept()
    del loss
    return left


def test_full_keeps_least(monkeypatch):
    """Of a block's 14 or so widths of activations, its input."""
    assert kept("full", monkeypatch) < 0.25 * kept("none", monkeypatch)


@pytest.mark.parametrize("what", ["full", "selective"])
def test_generation_and_validation_are_as_without(what):
    tokens_BT = random_rows(2).tokens_NT
    model = tiny_model(DEEP)
    with torch.no_grad():
        plain = model(tokens_BT)
        recompute_blocks(model, what)
        assert torch.equal(model(tokens_BT), plain)
