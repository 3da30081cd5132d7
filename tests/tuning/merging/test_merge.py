"""`seedbed merge`: folders in, a folder out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from seedbed.cli import main
from seedbed.configuration import from_arguments
from seedbed.data.batches.loader import WindowSource
from seedbed.data.tokens import open_tokens
from seedbed.errors import ConfigError, DataError
from seedbed.model.folder import load_model
from seedbed.runs import read_manifest
from seedbed.tokenizers import bytes as byte_tokenizer
from seedbed.tokenizers import characters
from seedbed.tuning.merging.config import EvolveConfig, MergeConfig
from seedbed.tuning.merging.evolution import HeldOut, evolve
from seedbed.tuning.merging.merge import merge
from seedbed.tuning.merging.stacking import Slice, read_slices, stacked
from tests.random_models import random_model, saved
from tests.tiny import make_tokens, tiny_run

METHODS = ("linear", "slerp", "task_arithmetic", "ties", "dare", "dare_ties", "breadcrumbs", "model_stock")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    place, tokenizer = tmp_path_factory.mktemp("models"), byte_tokenizer.build()
    return {
        name: saved(place / name, random_model(seed, tokenizer=tokenizer, layers=3), tokenizer)
        for seed, name in enumerate(("base", "a", "b"))
    }


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_model(folder)[0].named_parameters())


def merge_of(models: dict[str, Path], out: Path, *arguments: str):
    return merge(from_arguments(MergeConfig, [f"--models=[{models['a']}, {models['b']}]", f"--out={out}", *arguments]))


def test_a_linear_merge_is_a_model_folder_of_the_mean(models, tmp_path):
    result = merge_of(models, tmp_path / "m", "--weights=[3, 1]")
    a, b, found = (weights(folder) for folder in (models["a"], models["b"], tmp_path / "m"))
    for name, weight in found.items():
        torch.testing.assert_close(weight, 0.75 * a[name] + 0.25 * b[name])
    assert result == json.loads((tmp_path / "m" / "result.json").read_text())
    assert result["weights"] == [3, 1] and result["arithmetic"] == "fp32"
    manifest = read_manifest(tmp_path / "m")
    assert manifest.inputs == {f"model {i}": read_manifest(models[x]).hash for i, x in enumerate("ab")}
    assert "--method linear" in (tmp_path / "m" / "README.md").read_text()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_writes_a_model_that_answers(method, models, tmp_path):
    base = [] if method in ("linear", "slerp") else [f"--base={models['base']}"]
    merge_of(models, tmp_path / "m", f"--method={method}", *base)
    model, tokenizer = load_model(tmp_path / "m")
    assert model(torch.tensor([tokenizer.encode("Once")])).isfinite().all()


def test_the_first_model_is_not_changed_by_the_merge(models, tmp_path):
    before = (models["a"] / "model.safetensors").read_bytes()
    merge_of(models, tmp_path / "m")
    assert (models["a"] / "model.safetensors").read_bytes() == before


def test_stacked_layers_are_those_of_the_models_in_their_order(models, tmp_path):
    result = merge_of(models, tmp_path / "m", "--method=stack", '--layers=["0:0-2", "1:1-3", "0:2-3"]')
    a, b, found = (weights(folder) for folder in (models["a"], models["b"], tmp_path / "m"))
    assert result["layers"] == 5
    for layer, (origin, number) in enumerate([(a, 0), (a, 1), (b, 1), (b, 2), (a, 2)]):
        inside = [name.removeprefix("blocks.0.") for name in a if name.startswith("blocks.0.")]
        assert all(torch.equal(found[f"blocks.{layer}.{name}"], origin[f"blocks.{number}.{name}"]) for name in inside)
    assert torch.equal(found["embedding.weight"], a["embedding.weight"])
    assert torch.equal(found["final_norm.weight"], a["final_norm.weight"])


def test_a_stack_of_all_layers_of_one_model_is_that_model(models, tmp_path):
    merge(MergeConfig(models=[models["a"]], out=tmp_path / "m", method="stack", layers=["0:0-3"]))
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == (models["a"] / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "text, problem",
    [("0-2", "is not NUMBER:FIRST-END"), ("2:0-1", "names model 2"), ("0:2-2", "part"), ("0:0-4", "part")],
)
def test_slices_that_are_none_are_refused(text, problem):
    with pytest.raises(ConfigError, match=problem):
        read_slices([text], 2, 3)


def test_slices_are_read():
    assert read_slices(["1:0-3"], 2, 3) == [Slice(1, 0, 3)]


def test_models_that_do_not_fit_are_named(models, tmp_path):
    tokenizer = byte_tokenizer.build()
    other = saved(tmp_path / "other", random_model(tokenizer=tokenizer, layers=2), tokenizer)
    with pytest.raises(ConfigError, match=r"other is of another architecture .* layers 2, not 3"):
        merge(MergeConfig(models=[models["a"], other], out=tmp_path / "m"))
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("method", METHODS)
def test_a_model_that_holds_what_is_no_number_is_named_by_every_method(method, models, tmp_path):
    tokenizer = byte_tokenizer.build()
    broken = random_model(9, tokenizer=tokenizer, layers=3)
    with torch.no_grad():
        broken.blocks[1].attention.query.weight[0, 0] = torch.nan
    folder = saved(tmp_path / "broken", broken, tokenizer)
    base = None if method in ("linear", "slerp") else models["base"]
    with pytest.raises(DataError, match=r"broken: blocks\.1\.attention\.query\.weight holds what is no number"):
        merge(MergeConfig(models=[models["a"], folder], base=base, out=tmp_path / "m", method=method))
    assert not (tmp_path / "m").exists()


def test_models_of_different_tokenizers_are_refused_even_if_they_are_as_large(tmp_path):
    folders = []
    for name, letters in (("a", "abcdef"), ("b", "ghijkl")):
        tokenizer = characters.train([letters])
        folders.append(saved(tmp_path / name, random_model(tokenizer=tokenizer), tokenizer))
    with pytest.raises(ConfigError, match="another tokenizer"):
        merge(MergeConfig(models=folders, out=tmp_path / "m"))


def test_a_base_may_have_no_chat_template_and_the_merge_has_that_of_the_first_model(models, tmp_path):
    tokenizer = byte_tokenizer.build()
    chat = saved(tmp_path / "chat", random_model(5, tokenizer=tokenizer, layers=3), tokenizer.with_template("{{ x }}"))
    merge(MergeConfig(models=[chat, models["a"]], base=models["base"], out=tmp_path / "m", method="ties"))
    assert load_model(tmp_path / "m")[1].chat_template == "{{ x }}"


@pytest.mark.parametrize(
    "options, problem",
    [
        (["--method=ties"], "needs the model that all began with"),
        (["--weights=[1]"], "2 models, but 1 weights"),
        (["--method=stack"], "go together"),
        (["--base=BASE"], "base does nothing with method linear"),
        (["--density=0.5"], "density does nothing with method linear"),
        (["--weights=[1, -1]"], "numbers that are none"),
        (["--method=breadcrumbs", "--base=BASE", "--density=0.95", "--outliers=0.1"], "more than all"),
        (["--method=slerp", "--evolve.tokens=x"], "evolve looks for the weights"),
        (["--evolve.trials=3"], "evolve.trials does nothing without tokens"),
    ],
)
def test_options_that_make_no_sense_are_one_line(options, problem, models, tmp_path, capsys):
    options = [option.replace("BASE", str(models["base"])) for option in options]
    named = f"--models=[{models['a']}, {models['b']}]"
    assert main(["merge", named, "--out", str(tmp_path / "m"), *options]) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_evolution_finds_the_weights_of_a_bowl():
    config = EvolveConfig(tokens=Path("x"), trials=150, spread=0.3)
    found = evolve([1.0, 1.0], lambda weights: (weights[0] - 0.3) ** 2 + (weights[1] + 0.5) ** 2, config)
    assert found.weights == pytest.approx([0.3, -0.5], abs=0.02)
    assert len(found.losses) <= 150 and found.loss == min(found.losses) and found.losses[0] == pytest.approx(2.74)


def test_evolution_is_a_function_of_its_seed_and_survives_no_numbers():
    def measure(weights):
        return float("nan") if weights[0] > 1.2 else abs(weights[0]) + abs(weights[1])

    runs = [evolve([1.0, 1.0], measure, EvolveConfig(tokens=Path("x"), trials=40, seed=seed)) for seed in (0, 0, 1)]
    assert runs[0].losses == runs[1].losses != runs[2].losses and runs[0].loss < 1.0


def test_a_trial_without_a_loss_is_told_as_none(tmp_path):
    """Weights that sum up to nought are the first that are tried."""
    tokens = make_tokens(tmp_path)
    for name in "ab":
        tiny_run(tokens, tmp_path / name, "--train.steps=2")
    settings = MergeConfig(
        models=[tmp_path / name for name in "ab"],
        out=tmp_path / "m",
        weights=[1.0, -1.0],
        evolve=EvolveConfig(tokens=tokens, trials=4, rows=4),
    )
    told = merge(settings)["evolved"]
    assert told["loss_first"] is None and told["losses"][0] is None and told["loss"] in told["losses"]


def test_evolved_weights_are_no_worse_on_held_out_text(tmp_path):
    """Of a model that has learned something and one that has not, the weights move to the former."""
    tokens = make_tokens(tmp_path)
    tiny_run(tokens, tmp_path / "a", "--train.steps=40")
    tiny_run(tokens, tmp_path / "b", "--train.steps=1", "--train.seed=1")
    config = MergeConfig(
        models=[tmp_path / "a", tmp_path / "b"],
        out=tmp_path / "m",
        evolve=EvolveConfig(tokens=tokens, trials=30, rows=8),
    )
    result = merge(config)
    told = result["evolved"]
    assert told["loss"] < told["loss_first"] - 0.1 and told["trials"] == 30
    first, second = result["weights"]
    assert abs(first) > 2 * abs(second)


def test_weights_are_found_on_text_that_is_kept_for_validation(tmp_path):
    tokens = open_tokens(make_tokens(tmp_path))
    tiny_run(tmp_path / "tokens", tmp_path / "a", "--train.steps=1")
    model, tokenizer = load_model(tmp_path / "a")
    held_out = HeldOut(model, tokenizer, EvolveConfig(tokens=tmp_path / "tokens", rows=4))
    source = WindowSource(tokens.val, model.config.context, seed=0)
    assert torch.equal(held_out.batches[0].tokens_BT, source.batch(0, len(held_out.batches[0].tokens_BT)).tokens_BT)


def test_a_stack_begins_with_the_embedding_of_its_first_model_and_ends_as_its_last_does():
    models = [dict(random_model(seed, layers=2).named_parameters()) for seed in (0, 1, 2)]
    _, found = stacked(random_model(layers=2).config, models, [Slice(1, 0, 1), Slice(0, 0, 1), Slice(2, 1, 2)])
    outside = [name for name in found if not name.startswith("blocks.")]
    assert len(outside) > 1
    for name in outside:
        model = models[1] if name.startswith("embedding") else models[2]
        assert torch.equal(found[name], model[name]) and not torch.equal(model[name], models[0][name]), name
