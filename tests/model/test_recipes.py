"""Tensors that are made again in the backward pass."""

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from seedbed.model.accounting import kept_numbers
from seedbed.model.config import ModelConfig
from seedbed.model.recipes import Recipes, remade
from seedbed.model.transformer import Transformer
from tests.tiny import watch_kept


class Counted:
    """A function that knows how often it was called."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *inputs):
        self.calls += 1
        return self.function(*inputs)


def test_the_gradient_is_the_same_to_the_bit_and_the_result_is_made_twice_in_all():
    weight = torch.randn(8, 8, requires_grad=True)
    gradients = []
    for recipes in (False, True):
        x = torch.linspace(-1, 1, 32).view(4, 8).requires_grad_()
        sine = Counted(torch.sin)
        if recipes:
            with Recipes():
                y = remade(sine, x)
                loss = (y @ weight).sum() + (y.view(8, 4) @ weight[:4]).square().sum()
        else:
            y = sine(x)
            loss = (y @ weight).sum() + (y.view(8, 4) @ weight[:4]).square().sum()
        del y
        gradients.append(torch.autograd.grad(loss, (x, weight)))
        assert sine.calls == 1 + recipes, "two products keep it, and one makes it for both"
    assert all(map(torch.equal, *gradients))


def test_a_recipe_of_recipes_keeps_only_the_beginning():
    weight = torch.randn(8, 8, requires_grad=True)
    x = torch.randn(4, 8, requires_grad=True)
    first, second = Counted(torch.sin), Counted(torch.cos)
    with Recipes():
        loss = (remade(second, remade(first, x)) @ weight).sum()
    loss.backward()
    assert (first.calls, second.calls) == (2, 2)
    torch.testing.assert_close(weight.grad, x.detach().sin().cos().sum(0)[:, None].expand(8, 8))


@pytest.mark.parametrize("is_input", [False, True])
def test_what_is_kept_must_not_be_changed_in_place(is_input):
    weight, other = torch.randn(8, 8, requires_grad=True), torch.randn(8, 8, requires_grad=True)
    with Recipes():
        x = torch.randn(4, 8, requires_grad=True) * 2
        y = remade(torch.sin, x) if is_input else x @ other
        loss = (y @ weight).sum()
    (x if is_input else y).detach().add_(1)
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_memory_that_is_taken_anew_is_not_taken_for_what_lay_there():
    """Results that nobody keeps are freed, and other tensors come to lie where they lay."""
    weight = torch.randn(64, 64, dtype=torch.float64, requires_grad=True)
    x = torch.randn(64, 64, dtype=torch.float64, requires_grad=True)
    with Recipes():
        losses = []
        for factor in range(1, 20):
            remade(torch.mul, x, 1000 * factor)
            losses.append(((x * factor) @ weight).sum())
    sum(losses).backward()
    torch.testing.assert_close(weight.grad, sum(range(1, 20)) * x.detach().sum(0)[:, None].expand(64, 64))


def test_a_graph_can_be_gone_through_twice():
    x, weight = torch.randn(4, 8, requires_grad=True), torch.randn(8, 8, requires_grad=True)
    with Recipes():
        loss = (remade(torch.sin, x) @ weight).sum()
    first = torch.autograd.grad(loss, weight, retain_graph=True)
    assert torch.equal(*first, *torch.autograd.grad(loss, weight))


def test_what_a_result_was_made_of_is_freed_with_it_when_nobody_keeps_it():
    with Recipes():
        x = torch.randn(4, 8, requires_grad=True) * 2
        held = StorageWeakRef(x.untyped_storage())
        remade(torch.neg, x)
        del x
        remade(torch.neg, torch.randn(4, 8, requires_grad=True))
        assert held.expired()


def test_outside_it_is_a_plain_call():
    assert torch.equal(remade(torch.sin, torch.ones(3)), torch.ones(3).sin())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation": "relu2", "norm": "layer", "tied": True},
        {"short_convolution": 3, "norm_place": "sandwich"},
        {"norm_place": "post", "qk_norm": False, "positions": "learned", "attention_bias": True},
        {"activation": "gelu", "norm": "layer", "norm_bias": True, "qk_norm": False, "positions": "learned"},
        {"activation": "geglu", "norm_place": "sandwich"},
        {"activation": "reglu", "embedding_skip": True},
        {"experts": 4, "experts_active": 2, "value_embeddings": True, "embedding_skip": True},
    ],
)
def test_a_model_has_the_same_gradients_and_keeps_less(options, monkeypatch):
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "layers": 2, "width": 64, "heads": 4, "ff_width": 128, "context": 32}
    model = Transformer(ModelConfig(**{**sizes, **options}))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    tokens = torch.randint(64, (4, 32))
    kept, gradients = {}, {}
    for way in ("recipes", "plain"):
        if way == "plain":
            monkeypatch.setattr(Recipes, "add", lambda *given: None)
        count = watch_kept(model, monkeypatch)
        model.zero_grad()
        loss = model.hidden(tokens).square().sum()
        kept[way] = count()
        loss.backward()
        gradients[way] = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    assert gradients["plain"].keys() == gradients["recipes"].keys()
    for name, gradient in gradients["plain"].items():
        assert torch.equal(gradient, gradients["recipes"][name]), name
    assert kept["recipes"] < 0.85 * kept["plain"]
    # What `inspect` estimates: without the last norm and the loss, which are no part of the blocks.
    told = 4 * tokens.numel() * (kept_numbers(model.config) - 3 * model.config.width)
    assert 0.8 * kept["recipes"] < told < 1.25 * kept["recipes"], told / kept["recipes"]
