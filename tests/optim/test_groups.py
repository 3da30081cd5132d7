"""Every parameter is moved by one optimizer, at the rate and decay that the config promises it."""

from __future__ import annotations

import pytest
import torch
from torch.optim import AdamW

from seedbed.errors import ConfigError
from seedbed.optim.config import OptimizerConfig
from seedbed.optim.groups import build_optimizers, parameter_kinds, set_rates
from seedbed.optim.muon import Muon
from tests.random_models import random_model

RATES = {"rate": 0.1, "matrix_rate": 0.2, "embedding_rate": 0.3, "head_rate": 0.4, "vector_rate": 0.5}


def moved_by(model, config):
    """{parameter's name: [(optimizer's class, group)]}."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {name: [] for name in names.values()}
    for optimizer in build_optimizers(model, config):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                found[names[id(parameter)]].append((type(optimizer), group))
    return found


def promised(name, config):
    """Optimizer, rate and decay by what the docstrings of OptimizerConfig say."""
    if name == "embedding.weight":
        kind, rate, decay = AdamW, config.embedding_rate, 0
    elif name == "head.weight":
        kind, rate, decay = AdamW, config.head_rate, config.weight_decay
    elif "norm" in name:
        kind, rate, decay = AdamW, config.vector_rate, 0
    else:
        kind, rate, decay = Muon, config.matrix_rate, config.weight_decay
    return (kind, rate, decay) if config.name == "muon" else (AdamW, config.rate, decay)


def rated(name, **settings):
    """A config whose rates are all different; `rate` is adamw's alone."""
    rates = RATES if name == "adamw" else {key: value for key, value in RATES.items() if key != "rate"}
    return OptimizerConfig(name=name, **rates, **settings)


@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied head"])
@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_each_parameter_has_one_optimizer_and_its_promised_rate(name, tied):
    config = rated(name, weight_decay=0.01)
    for parameter, places in moved_by(random_model(tied=tied), config).items():
        assert len(places) == 1, parameter
        kind, group = places[0]
        assert (kind, group["lr"], group["weight_decay"]) == promised(parameter, config), parameter


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_settings_reach_the_optimizer(name):
    config = OptimizerConfig(name=name, momentum=0.5, newton_schulz_steps=3, beta1=0.6, beta2=0.7, epsilon=1e-3)
    for places in moved_by(random_model(), config).values():
        for kind, group in places:
            if kind is Muon:
                assert (group["momentum"], group["steps"]) == (0.5, 3)
            else:
                assert (group["betas"], group["eps"]) == ((0.6, 0.7), 1e-3)


@pytest.mark.parametrize(("name", "usual"), [("muon", (0.8, 1e-10)), ("adamw", (0.9, 1e-8))])
def test_adamw_alone_has_its_usual_memory(name, usual):
    for places in moved_by(random_model(), OptimizerConfig(name=name)).values():
        for kind, group in places:
            assert kind is Muon or (group["betas"][0], group["eps"]) == usual


def test_frozen_parameters_are_left_alone():
    model = random_model()
    model.embedding.requires_grad_(False)
    model.blocks[0].requires_grad_(False)
    found = moved_by(model, OptimizerConfig())
    for name, parameter in model.named_parameters():
        assert len(found[name]) == parameter.requires_grad, name


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_one_step_moves_every_parameter(name):
    model = random_model()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model(torch.arange(20)[None]).square().mean().backward()
    for optimizer in build_optimizers(model, OptimizerConfig(name=name)):
        optimizer.step()
    assert [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])] == []


def test_rates_are_a_multiple_of_their_peaks_however_often_they_are_set():
    optimizers = build_optimizers(random_model(), rated("muon"))
    for multiple in (0.5, 0.25, 1.0):
        set_rates(optimizers, multiple)
        rates = {group["lr"] for optimizer in optimizers for group in optimizer.param_groups}
        assert rates == {rate * multiple for name, rate in RATES.items() if name != "rate"}


def test_a_rate_that_muon_would_not_use_is_refused():
    with pytest.raises(ConfigError, match=r"rate is 0\.1, but muon does not use it"):
        OptimizerConfig(rate=0.1)


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ({"rate": 0}, "rate must be > 0, got 0"),
        ({"matrix_rate": float("nan")}, "matrix_rate must be > 0, got nan"),
        ({"head_rate": float("inf")}, "head_rate must be > 0, got inf"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0"),
        ({"newton_schulz_steps": 0}, "newton_schulz_steps must be at least 1"),
        ({"momentum": 1.0}, "momentum must be between 0 and 0.9999"),
        ({"beta2": float("nan")}, "beta2 must be between 0 and 0.9999"),
    ],
)
def test_a_rate_that_cannot_be_used_is_refused(setting, problem):
    with pytest.raises(ConfigError, match=problem):
        OptimizerConfig(**setting)


def test_what_a_parameter_is_does_not_hang_on_its_name():
    """Wrappers, such as those for compiling and for many processes, put a word before every name."""
    bare, wrapped = random_model(), torch.nn.ModuleDict({"module": random_model()})
    kinds, inside = parameter_kinds(bare), parameter_kinds(wrapped)
    shapes = [{kind: [tuple(p.shape) for p in found] for kind, found in each.items()} for each in (kinds, inside)]
    assert shapes[0] == shapes[1]
    assert kinds["head"] == [bare.head.weight] and kinds["embedding"] == [bare.embedding.weight]
    named = torch.nn.ModuleDict({"head": torch.nn.Linear(4, 4), "embedding": torch.nn.Linear(4, 4, bias=False)})
    assert {kind: len(found) for kind, found in parameter_kinds(named).items()} == {
        **{"matrix": 2, "embedding": 0, "head": 0, "vector": 1}
    }
