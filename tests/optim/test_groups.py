"""Every parameter is moved by one optimizer, at the rate and decay that the config promises it."""

from __future__ import annotations

import pytest
import torch
from torch.optim import AdamW

from seedbed.configuration import load_config
from seedbed.errors import ConfigError
from seedbed.optim.adafactor import Adafactor
from seedbed.optim.config import LIKE_MUON, USUAL, OptimizerConfig, ParameterGroup
from seedbed.optim.groups import build_optimizers, parameter_kinds, set_rates
from seedbed.optim.lion import Lion
from seedbed.optim.muon import Muon
from seedbed.optim.sgd import SGD
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
    others = {"lion": Lion, "adafactor": Adafactor, "sgd": SGD}.get(config.name, AdamW)
    if name == "embedding.weight":
        kind, rate, decay = AdamW, config.embedding_rate, 0
    elif name == "head.weight":
        kind, rate, decay = AdamW, config.head_rate, config.weight_decay
    elif "norm" in name:
        kind, rate, decay = AdamW, config.vector_rate, 0
    else:
        kind, rate, decay = Muon, config.matrix_rate, config.weight_decay
    return (kind, rate, decay) if config.name in LIKE_MUON else (others, config.rate, decay)


def rated(name, **settings):
    """A config whose rates are all different; `rate` is for optimizers that have one."""
    rates = RATES if name not in LIKE_MUON else {key: value for key, value in RATES.items() if key != "rate"}
    return OptimizerConfig(name=name, **rates, **settings)


@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied head"])
@pytest.mark.parametrize("name", USUAL)
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


@pytest.mark.parametrize(
    ("name", "settings", "wanted"),
    [
        ("lion", {}, {"lr": 1e-4, "betas": (0.9, 0.99)}),
        ("lion", {"beta1": 0.5, "beta2": 0.6}, {"lr": 1e-4, "betas": (0.5, 0.6)}),
        ("adafactor", {}, {"lr": 1e-3, "relative": False}),
        ("adafactor", {"relative_step": True, "rate": 0.5}, {"lr": 0.5, "relative": True}),
        ("sgd", {}, {"lr": 0.1, "momentum": 0.9}),
        ("sgd", {"momentum": 0.0, "cautious_decay": True}, {"momentum": 0.0, "cautious": True}),
    ],
)
def test_what_is_given_or_usual_reaches_the_other_optimizers(name, settings, wanted):
    for places in moved_by(random_model(), OptimizerConfig(name=name, **settings)).values():
        for _, group in places:
            assert all(group[key] == pytest.approx(value) for key, value in wanted.items())


@pytest.mark.parametrize(
    ("settings", "memory", "steps"),
    [
        ({"name": "muon"}, None, ("jordan", 5)),
        ({"name": "normuon"}, 0.95, ("jordan", 5)),
        ({"name": "normuon", "beta2": 0.9, "polynomial": "polar_express", "newton_schulz_steps": 4}, 0.9,
         ("polar_express", 4)),
    ],
)  # fmt: skip
def test_normuon_is_muon_with_a_memory_of_rows(settings, memory, steps):
    for places in moved_by(random_model(), OptimizerConfig(**settings)).values():
        for kind, group in places:
            if kind is Muon:
                assert (group["neuron_memory"], (group["polynomial"], group["steps"])) == (memory, steps)


# Rates and decays of one's own ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", USUAL)
def test_each_kind_can_have_a_rate_of_its_own_under_every_optimizer(name):
    own = {"matrix": 0.11, "embedding": 0.22, "head": 0.33, "vector": 0.44}
    groups = [ParameterGroup(of=kind, rate=rate) for kind, rate in own.items()]
    model = random_model()
    found = moved_by(model, OptimizerConfig(name=name, groups=groups))
    kinds = {parameter: kind for kind, members in parameter_kinds(model).items() for parameter in members}
    for parameter_name, parameter in model.named_parameters():
        ((_, group),) = found[parameter_name]
        assert group["lr"] == group["peak"] == own[kinds[parameter]], parameter_name


def test_the_last_group_that_fits_counts_and_names_are_patterns():
    groups = [
        ParameterGroup(of="matrix", rate=0.5, weight_decay=0.7),
        ParameterGroup(of="*.down.weight", weight_decay=0),
        ParameterGroup(of="blocks.0.*", rate=0.25),
        ParameterGroup(of="final_norm.weight", weight_decay=0.3),
    ]
    bare = random_model()
    for model, before in ((bare, ""), (torch.nn.ModuleDict({"module": bare}), "module.")):
        found = moved_by(model, OptimizerConfig(name="adamw", rate=0.1, weight_decay=0.2, groups=groups))
        rates = {name.removeprefix(before): (g["lr"], g["weight_decay"]) for name, ((_, g),) in found.items()}
        assert rates["blocks.0.feedforward.down.weight"] == (0.25, 0)
        assert rates["blocks.1.feedforward.down.weight"] == (0.5, 0)
        assert rates["blocks.1.attention.query.weight"] == (0.5, 0.7)
        assert rates["blocks.0.attention_norm.weight"] == (0.25, 0)
        assert rates["final_norm.weight"] == (0.1, 0.3)
        assert rates["head.weight"] == (0.1, 0.2)


def test_a_group_that_fits_no_parameter_is_refused_with_the_names_there_are():
    config = OptimizerConfig(groups=[ParameterGroup(of="*.donw.weight", weight_decay=0)])
    with pytest.raises(ConfigError, match=r"no parameter is called \*\.donw\.weight") as told:
        build_optimizers(random_model(), config)
    assert "matrix, embedding, head, vector, adapter, embedding.weight" in told.value.fix


def test_a_group_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="of head: neither rate nor weight_decay is given"):
        ParameterGroup(of="head")


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_rates_fall_by_the_same_factor_from_each_layer_to_the_one_below(name):
    """Clark et al. 2020, §4.2 of ELECTRA's appendix; the head and the norm before it are the top layer."""
    model = random_model()
    depth = len(model.blocks)
    plain, falling = (moved_by(model, OptimizerConfig(name=name, layer_decay=decay)) for decay in (1.0, 0.5))
    for parameter, ((_, group),) in plain.items():
        layer = 0 if parameter == "embedding.weight" else depth + 1
        if parameter.startswith("blocks."):
            layer = int(parameter.split(".")[1]) + 1
        assert falling[parameter][0][1]["lr"] == group["lr"] * 0.5 ** (depth + 1 - layer), parameter
    assert depth == 2


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"name": "normuon", "rate": 0.1}, "but normuon does not use it"),
        ({"name": "adamw", "cautious_decay": True}, "cautious_decay cannot stand beside the name adamw"),
        ({"name": "lion", "relative_step": True}, "relative_step is for the name adafactor, not lion"),
        ({"layer_decay": 0}, "layer_decay must be between 0.01 and 1"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, problem):
    with pytest.raises(ConfigError, match=problem):
        OptimizerConfig(**settings)


def test_settings_of_a_run_of_old_still_mean_the_same(tmp_path):
    """As they were written down when there were Muon and AdamW alone, every value in full."""
    path = tmp_path / "config.yaml"
    path.write_text(
        "name: adamw\nrate: null\nmatrix_rate: 0.02\nembedding_rate: 0.05\nhead_rate: 0.004\nvector_rate: 0.01\n"
        "weight_decay: 0.1\nmomentum: 0.95\nbeta1: null\nbeta2: 0.95\nepsilon: null\nnewton_schulz_steps: 5\n"
    )
    config = load_config(path, OptimizerConfig)
    # So the command that began the run goes on with it.
    assert config.resolve() == OptimizerConfig(name="adamw", weight_decay=0.1).resolve()
    for ((kind, group),) in moved_by(random_model(), config).values():
        assert (kind, group["lr"], group["betas"], group["eps"]) == (AdamW, 1e-3, (0.9, 0.95), 1e-8)


def test_frozen_parameters_are_left_alone():
    model = random_model()
    model.embedding.requires_grad_(False)
    model.blocks[0].requires_grad_(False)
    found = moved_by(model, OptimizerConfig())
    for name, parameter in model.named_parameters():
        assert len(found[name]) == parameter.requires_grad, name


@pytest.mark.parametrize("name", USUAL)
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
        **{"matrix": 2, "embedding": 0, "head": 0, "vector": 1, "adapter": 0}
    }
