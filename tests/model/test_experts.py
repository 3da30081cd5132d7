"""A mixture of experts computes what its formula says, token by token."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from seedbed.errors import ConfigError
from seedbed.model.config import ModelConfig
from seedbed.model.experts import BalancedRouter, GatedExperts, build_experts
from seedbed.model.feedforward import ACTIVATIONS, GATES, build_feedforward
from seedbed.model.transformer import Transformer, weight_shapes
from tests.random_models import random_model, randomise

SIZES = {"vocab_size": 11, "layers": 1, "width": 6, "heads": 1, "head_width": 4}


@st.composite
def mixtures(draw):
    """A resolved config of random experts."""
    active = draw(st.integers(1, 4))
    return ModelConfig(
        **SIZES,
        activation=draw(st.sampled_from([*ACTIVATIONS, *GATES])),
        experts=draw(st.integers(active, 7)),
        experts_active=active,
        experts_shared=draw(st.integers(0, 2)),
        expert_width=draw(st.integers(1, 9)),
        router=draw(st.sampled_from(["softmax", "sigmoid"])),
        router_normalised=active > 1 and draw(st.booleans()),
        balance_rate=draw(st.sampled_from([0.0, 0.001])),
    ).resolve()


def of_each_token(experts, config, x_BTD):
    """The formula, for one token after the other and one expert after the other."""
    rows = []
    for x_D in x_BTD.reshape(-1, x_BTD.shape[-1]):
        logits_E = experts.router.weight @ x_D
        scores_E = logits_E.softmax(0) if config.router == "softmax" else 1 / (1 + torch.exp(-logits_E))
        preference_E = scores_E + experts.router.bias if config.balance_rate else scores_E
        chosen = sorted(range(config.experts), key=lambda e: -preference_E[e].item())[: config.experts_active]
        total = sum(scores_E[e] for e in chosen) if config.router_normalised else 1.0
        y_D = 0 if experts.shared is None else experts.shared(x_D[None])[0]
        for e in chosen:
            up, down = experts.up.weight[e], experts.down.weight[e]
            if config.is_gated:
                inner = GATES[config.activation](experts.gate.weight[e] @ x_D, up @ x_D)
            else:
                inner = ACTIVATIONS[config.activation](up @ x_D)
            y_D = y_D + scores_E[e] / total * (down @ inner)
        rows.append(y_D)
    return torch.stack(rows).view_as(x_BTD)


@settings(max_examples=60)
@given(mixtures(), st.integers(1, 3), st.integers(1, 7), st.integers(0, 2**32))
def test_no_token_is_dropped_and_outputs_and_gradients_are_those_of_a_loop_over_tokens(config, rows, length, seed):
    experts = build_experts(config).double()
    randomise(experts, seed)
    x_BTD = torch.randn(rows, length, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    direction_BTD = torch.randn(x_BTD.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    results = []
    for compute in (experts, lambda x: of_each_token(experts, config, x)):
        experts.zero_grad()
        inputs = x_BTD.clone().requires_grad_()
        y_BTD = compute(inputs)
        (y_BTD * direction_BTD).sum().backward()
        gradients = {n: p.new_zeros(()) if p.grad is None else p.grad.clone() for n, p in experts.named_parameters()}
        results.append({"y": y_BTD.detach(), "x": inputs.grad, **gradients})
    for name, ours in results[0].items():
        torch.testing.assert_close(ours, results[1][name].expand_as(ours), rtol=0, atol=1e-10)


@pytest.mark.parametrize("activation", ["swiglu", "relu2"])
def test_one_expert_is_the_dense_feed_forward_to_the_bit(activation):
    config = ModelConfig(**{**SIZES, "width": 32}, activation=activation, experts=1).resolve()
    experts, dense = build_experts(config), build_feedforward(config)
    assert config.expert_width == config.ff_width
    randomise(experts)
    for name in ("gate", "up", "down") if config.is_gated else ("up", "down"):
        dense.get_submodule(name).weight.data = experts.get_submodule(name).weight[0].detach().clone()
    outputs, gradients = [], []
    for compute in (experts, dense):
        x_BTD = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
        outputs.append(compute(x_BTD))
        outputs[-1].square().sum().backward()
        gradients.append(x_BTD.grad)
    assert torch.equal(*outputs) and torch.equal(*gradients)
    assert torch.equal(experts.up.weight.grad[0], dense.up.weight.grad)


def test_a_token_does_not_depend_on_the_others_of_its_batch():
    """Without limits on what an expert takes, nobody is crowded out."""
    model = random_model(experts=5, causal=True).double()
    tokens = torch.randint(50, (3, 20), generator=torch.Generator().manual_seed(0))
    whole = model(tokens)
    torch.testing.assert_close(whole[1:2, :7], model(tokens[1:2, :7]), rtol=0, atol=1e-12)


def test_under_autocast_the_router_stays_wide():
    config = ModelConfig(**SIZES, experts=4).resolve()
    experts = GatedExperts(config)
    randomise(experts)
    x_ND = torch.randn(50, 6)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = experts.router(x_ND)
        assert F.linear(x_ND, experts.router.weight).dtype == torch.bfloat16
        assert experts(x_ND[None]).isfinite().all()
    assert torch.equal(narrow.logits_NE, experts.router(x_ND).logits_NE)


def test_a_bias_moves_by_its_rate_towards_even_loads_and_weights_do_not_see_it():
    router = BalancedRouter(ModelConfig(**SIZES, experts=4, balance_rate=0.25).resolve())
    randomise(router)
    x_ND = torch.randn(9, 6)
    router.bias.data = torch.tensor([9.0, 0.0, 8.0, 0.0])
    routing = router(x_ND)
    assert set(routing.chosen_NC.flatten().tolist()) == {0, 2}
    torch.testing.assert_close(routing.weights_NC[:, 0], routing.scores_NE[:, 0] / routing.scores_NE[:, [0, 2]].sum(1))
    router.balance(torch.tensor([10.0, 2.0, 6.0, 6.0]))
    assert router.bias.tolist() == [8.75, 0.25, 8.0, 0.0]


@pytest.mark.parametrize(
    ("values", "mixed"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"experts_every": 2}, [1, 3]),
        ({"experts_dense_first": 1}, [1, 2, 3, 4]),
        ({"experts_every": 2, "experts_dense_first": 2}, [3]),
    ],
)
def test_experts_stand_in_the_blocks_that_are_asked_for(values, mixed):
    model = Transformer(ModelConfig(**(SIZES | {"layers": 5}), experts=3, **values))
    found = [number for number, block in enumerate(model.blocks) if isinstance(block.feedforward, GatedExperts)]
    assert found == mixed
    promised = weight_shapes(model.config)
    assert promised == {name: tuple(weight.shape) for name, weight in model.named_parameters()}


def test_fresh_experts_have_the_spread_of_dense_matrices_and_begin_as_the_identity():
    torch.manual_seed(0)
    model = Transformer(ModelConfig(**(SIZES | {"width": 64}), experts=8, experts_shared=1, balance_rate=0.1))
    experts = model.blocks[0].feedforward
    assert not experts.down.weight.any() and not experts.shared.down.weight.any() and not experts.router.bias.any()
    assert float(experts.up.weight.detach().std()) == pytest.approx(1 / 8, rel=0.02)
    assert float(experts.router.weight.detach().std()) == pytest.approx(1 / 8, rel=0.1)


def test_left_out_a_token_goes_through_experts_as_wide_as_one_feed_forward():
    config = ModelConfig(**(SIZES | {"width": 96}), experts=8, experts_active=3, experts_shared=1).resolve()
    assert config.ff_width == 256 and config.expert_width == 64
    assert ModelConfig(**SIZES, experts=8).resolve().experts_active == 2


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"experts_shared": 2}, "experts_shared is 2, but experts is 0"),
        ({"balance_rate": 0.1}, "balance_rate is 0.1, but experts is 0"),
        ({"experts": 2, "experts_active": 3}, "experts_active must be between 1 and experts"),
        ({"experts": 2, "experts_active": 1, "router_normalised": True}, "router_normalised with one active expert"),
        ({"experts": 2, "feedforward_bias": True}, "an expert has no bias"),
        ({"experts": 2, "expert_width": 0}, "expert_width must be at least 1"),
        ({"experts": 2, "experts_dense_first": 1}, "no block has experts"),
        ({"experts": 2, "experts_every": 2}, "no block has experts"),
        ({"experts": 2, "balance_loss": -0.1}, "balance_loss must be at least 0"),
        ({"experts": 2, "experts_shared": 4_000, "expert_width": 60_000}, "experts_shared times expert_width"),
    ],
)
def test_experts_that_make_no_sense_are_refused(values, said):
    with pytest.raises(ConfigError, match=said):
        ModelConfig(**SIZES, **values).resolve()
