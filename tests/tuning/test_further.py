"""An adapter is trained on, by the same stage or another one, and stays one over its base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import seedbed.tuning.finetune as room
from seedbed.alignment.direct.config import DirectConfig
from seedbed.alignment.direct.dpo import dpo
from seedbed.alignment.policy.config import GrpoConfig, PpoConfig
from seedbed.alignment.policy.grpo import grpo
from seedbed.alignment.policy.ppo import ppo
from seedbed.alignment.policy.rollouts import Rollouts
from seedbed.alignment.reward_models.config import RewardConfig
from seedbed.alignment.reward_models.training import reward
from seedbed.configuration import from_arguments
from seedbed.errors import SeedbedError
from seedbed.model.adapters.opening import read_learner
from seedbed.model.folder import find_config, load_model
from seedbed.model.linears.layers import storages
from seedbed.quantization.config import QuantizeConfig
from seedbed.quantization.quantize import quantize
from seedbed.runs import read_manifest
from seedbed.tuning.config import FuseConfig
from seedbed.tuning.finetune import finetune
from seedbed.tuning.fuse import fuse
from tests.alignment.judged import PREFERENCES, write_rows
from tests.alignment.policy.test_grpo import Death
from tests.tiny import records
from tests.tuning.test_adapters import LEARNS, METHODS, PROMPTS, TOKENS_BT, adapter_config, weights

GIVEN = ("--train.steps=6", "--train.checkpoint.steps=2", "--train.validate_every=3")


@pytest.fixture(scope="module", params=METHODS)
def trained(request, base, tmp_path_factory) -> Path:
    """The folder of a run."""
    place = tmp_path_factory.mktemp(f"first_{request.param}")
    rank = ("--lora.rank=3", "--lora.targets=[query,down]") if request.param in LEARNS else ()
    finetune(adapter_config(base, place, request.param, *GIVEN, *rank, "--optimizer.adapter_rate=0.05"))
    return place / "run"


@pytest.fixture(scope="module")
def lora(base, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("lora")
    finetune(adapter_config(base, place, "lora", *GIVEN, "--optimizer.adapter_rate=0.05", "--lora.dropout=0.2"))
    return place / "run"


def virtual(model) -> torch.Tensor:
    return torch.tensor(model.virtual_ids, dtype=torch.long).expand(len(TOKENS_BT), -1)


def outputs(model) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(torch.cat([virtual(model), TOKENS_BT], 1))


def told(run: Path, key: str) -> list[float]:
    return [record[key] for record in records(run) if key in record]


def test_it_begins_where_it_ended_and_is_an_adapter_over_the_same_base(trained, base, tmp_path, monkeypatch):
    stages = []
    run = room.run_stage
    monkeypatch.setattr(room, "run_stage", lambda stage, config: stages.append(stage) or run(stage, config))
    before = weights(trained)
    finetune(adapter_config(trained, tmp_path, "further", *GIVEN, "--optimizer.adapter_rate=0.05"))
    as_it_ended, as_it_begins = load_model(trained)[0], stages[0].model()
    torch.testing.assert_close(outputs(as_it_begins), outputs(as_it_ended), rtol=0, atol=1e-5)
    assert bool(storages(as_it_begins)) == (read_manifest(trained).config["method"] == "qlora")
    losses = told(tmp_path / "run", "val_loss")
    assert losses[0] == pytest.approx(told(trained, "val_loss")[-1], abs=1e-5) and losses[-1] < losses[0]
    assert weights(trained) == before != weights(tmp_path / "run")
    made, inputs = read_manifest(tmp_path / "run" / "adapter"), read_manifest(base)
    assert made.inputs["model"] == inputs.hash
    assert made.inputs["adapter"] == read_manifest(trained / "adapter").hash
    first, second = (
        json.loads((it / "adapter" / "adapter_config.json").read_text()) for it in (trained, tmp_path / "run")
    )
    if read_manifest(trained).config["method"] != "p_tuning":  # whose network was left behind
        assert first == second
    further = load_model(tmp_path / "run")[0]
    assert (outputs(further) - outputs(as_it_ended)).abs().max() > 1e-3


@pytest.mark.parametrize("method", ["lora", "qlora", "prefix"])
def test_stopped_it_goes_on_to_the_same_bits(method, base, tmp_path):
    finetune(adapter_config(base, tmp_path, method, *GIVEN, out="first"))
    for name in ("whole", "broken"):
        finetune(adapter_config(tmp_path / "first", tmp_path, "further", *GIVEN, out=name))
    (tmp_path / "broken" / "checkpoints" / "step_00000006" / "manifest.json").unlink()
    again = finetune(adapter_config(tmp_path / "first", tmp_path, "further", *GIVEN, out="broken"))
    assert again["resumed_at"] == 4 and weights(tmp_path / "whole") == weights(tmp_path / "broken")


def test_once_more_and_once_more_it_is_fused_with_the_base_as_any(lora, base, tmp_path):
    finetune(adapter_config(lora, tmp_path, "further", *GIVEN, out="second"))
    finetune(adapter_config(tmp_path / "second", tmp_path, "further", *GIVEN, out="third"))
    fuse(FuseConfig(adapter=tmp_path / "third", out=tmp_path / "model"))
    fused, worn = load_model(tmp_path / "model")[0], load_model(tmp_path / "third")[0]
    torch.testing.assert_close(outputs(fused), outputs(worn), rtol=0, atol=1e-5)
    assert read_manifest(tmp_path / "third" / "adapter").inputs["model"] == read_manifest(base).hash


@pytest.mark.parametrize("trained", [method for method in METHODS if method not in PROMPTS], indirect=True)
def test_the_reference_of_preferences_is_what_it_begins_as(trained, tmp_path):
    data = write_rows(tmp_path / "preferences.jsonl", PREFERENCES)
    arguments = [f"--model={trained}", f"--data={data}", f"--out={tmp_path / 'run'}", "--method=further", *GIVEN]
    quick = ["--train.batch=4", "--train.device=cpu", "--optimizer.rate=0.003", "--validation_fraction=0.25"]
    dpo(from_arguments(DirectConfig, [*arguments, *quick]))
    assert told(tmp_path / "run", "val_loss")[0] == pytest.approx(0.693147, abs=1e-5)
    assert told(tmp_path / "run", "val_margin")[0] == pytest.approx(0, abs=1e-5)
    assert told(tmp_path / "run", "val_margin")[-1] > 0.01


def odd(problem, text: str) -> float:
    """Less than nought, for answers that are cut off."""
    return -(sum(map(ord, text)) % 7) / 7


def policy(kind, model: Path, tmp_path: Path, *more: str):
    problems = write_rows(tmp_path / "problems.jsonl", [{"prompt": f"{n}?", "answer": str(n)} for n in range(8)])
    arguments = [f"--model={model}", f"--data={problems}", f"--out={tmp_path / 'run'}", "--method=further"]
    quick = ["--train.batch=8", "--train.steps=3", "--train.device=cpu", "--optimizer.rate=0.01", "--max_tokens=4"]
    quick += ["--train.micro_batch=4"]  # a rollout is made once a step, whatever the adapter does meanwhile
    return from_arguments(kind, [*arguments, *quick, "--kl=0.1", "--rewards={own: 1}", *more])


@pytest.mark.parametrize("trained", [method for method in METHODS if method not in PROMPTS], indirect=True)
def test_a_policy_is_held_near_to_what_it_begins_as(trained, tmp_path, monkeypatch):
    """Not near to the base: also when it has moved, and without a second copy of the base."""
    seen = []
    reference = Rollouts._reference

    def spy(rollouts: Rollouts, rollout):
        found_BT = reference(rollouts, rollout)
        seen.append((rollout, found_BT, rollouts._logprobs(load_model(trained)[0], rollout, 1.0)))
        assert rollouts.reference is None
        return found_BT

    monkeypatch.setattr(Rollouts, "_reference", spy)
    grpo(policy(GrpoConfig, trained, tmp_path, "--group=4"), rewards={"own": odd})
    assert len(seen) == 3
    for _, found_BT, expected_BT in seen:
        torch.testing.assert_close(found_BT, expected_BT, rtol=0, atol=1e-5)
    divergences = told(tmp_path / "run", "kl")
    assert divergences[0] == pytest.approx(0, abs=1e-6) and divergences[-1] > 1e-5


@pytest.mark.parametrize(("kind", "run"), [(GrpoConfig, grpo), (PpoConfig, ppo)])
def test_a_policy_that_died_goes_on_near_to_the_same_beginning(kind, run, lora, tmp_path):
    def outcome(name: str, observers=()) -> tuple[bytes, bytes]:
        (tmp_path / name).mkdir(exist_ok=True)
        more = ("--train.checkpoint.steps=1", *(("--group=4",) if kind is GrpoConfig else ()))
        run(policy(kind, lora, tmp_path / name, *more), observers, {"own": odd})
        return (tmp_path / name / "run" / "metrics.jsonl").read_bytes(), weights(tmp_path / name / "run")

    with pytest.raises(KeyboardInterrupt):
        outcome("cut", [Death(2)])
    assert outcome("cut") == outcome("whole")


def test_a_critic_learns_beside_it(lora, base, tmp_path):
    ppo(policy(PpoConfig, lora, tmp_path), rewards={"own": odd})
    assert told(tmp_path / "run", "kl")[0] == pytest.approx(0, abs=1e-6)
    assert read_manifest(tmp_path / "run" / "adapter").inputs["model"] == read_manifest(base).hash


@pytest.mark.parametrize("method", ["lora", "adapter"])
def test_a_reward_model_keeps_its_score_head(method, base, tmp_path):
    data = write_rows(tmp_path / "preferences.jsonl", PREFERENCES)
    common = [f"--data={data}", *GIVEN, "--train.batch=4", "--train.device=cpu", "--optimizer.rate=0.01"]
    for model, way, out in ((base, method, "first"), (tmp_path / "first", "further", "second")):
        given = [f"--model={model}", f"--method={way}", f"--out={tmp_path / out}", "--validation_fraction=0.25"]
        reward(from_arguments(RewardConfig, [*common, *given]))
    assert told(tmp_path / "second", "val_loss")[0] == pytest.approx(told(tmp_path / "first", "val_loss")[-1], abs=1e-5)
    with pytest.raises(SeedbedError, match="is a reward model or a critic"):
        finetune(adapter_config(tmp_path / "first", tmp_path, "further", *GIVEN, out="talks"))


def test_dropout_is_that_of_the_training_before(lora, tmp_path, monkeypatch):
    stages = []
    monkeypatch.setattr(room, "run_stage", lambda stage, config: stages.append(stage) or {})
    finetune(adapter_config(lora, tmp_path, "further", *GIVEN))
    rates = {module.p for module in stages[0].model().modules() if isinstance(module, torch.nn.Dropout)}
    assert 0.2 in rates


@pytest.mark.parametrize(
    ("first", "arguments", "said"),
    [
        (None, ("--method=further",), "is no adapter that could be trained further"),
        ("lora", ("--method=lora",), "is an adapter, and another one is to be trained over it"),
        ("lora", ("--method=further", "--lora.rank=4"), "lora.rank does nothing under the method further"),
        ("lora", ("--method=further", "--freeze=[embedding]"), "freeze does nothing under the method further"),
        ("lora", ("--method=further", "--resize_vocabulary=true"), "resize_vocabulary is for the method full"),
        ("qlora", ("--method=further", "--train.parallel=fsdp"), "fsdp divides weights"),
        ("prefix", ("--method=further", "--train.recompute=full"), "neither train.compile nor train.recompute"),
        ("prompt", ("--method=further", "--length=21"), "which leaves no room in a row of 21"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(first, arguments, said, base, tmp_path):
    model = base
    if first is not None:
        finetune(adapter_config(base, tmp_path, first, "--train.steps=1", out="first"))
        model = tmp_path / "first"
    with pytest.raises(SeedbedError) as told:
        finetune(adapter_config(model, tmp_path, *[a.removeprefix("--method=") for a in arguments]))
    assert said in told.value.problem and "\n" not in told.value.problem
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", PROMPTS)
def test_what_stands_before_texts_is_for_finetune_alone(method, base, tmp_path):
    finetune(adapter_config(base, tmp_path, method, "--train.steps=1", out="first"))
    data = write_rows(tmp_path / "preferences.jsonl", PREFERENCES)
    with pytest.raises(SeedbedError, match="is for finetune"):
        dpo(
            from_arguments(
                DirectConfig,
                [
                    *(f"--model={tmp_path / 'first'}", f"--data={data}", f"--out={tmp_path / 'run'}"),
                    *("--method=further", "--train.steps=1"),
                ],
            )
        )


def copied(lora: Path, place: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """Its folder as another tool would leave it, and its weights."""
    shutil.copytree(lora / "adapter", place, ignore=shutil.ignore_patterns("manifest.json"))
    return place / "adapter_model.safetensors", load_file(place / "adapter_model.safetensors")


def test_a_byte_that_has_changed_is_noticed(lora, tmp_path):
    shutil.copytree(lora, tmp_path / "first")
    file = tmp_path / "first" / "adapter" / "adapter_model.safetensors"
    held = bytearray(file.read_bytes())
    held[-2] ^= 1
    file.write_bytes(held)
    with pytest.raises(SeedbedError, match=r"adapter_model\.safetensors"):
        finetune(adapter_config(tmp_path / "first", tmp_path, "further", *GIVEN))


def test_what_is_no_number_is_named(lora, tmp_path):
    file, held = copied(lora, tmp_path / "theirs")
    save_file({name: weight * torch.nan for name, weight in held.items()}, file)
    with pytest.raises(SeedbedError, match="holds what is no number"):
        finetune(adapter_config(tmp_path / "theirs", tmp_path, "further", *GIVEN))


def test_every_row_of_a_layer_learns_though_a_column_is_nought(lora, base, tmp_path):
    file, held = copied(lora, tmp_path / "theirs")
    next(weight for name, weight in held.items() if "lora_B" in name)[:, 2] = 0
    save_file(held, file)
    learner = read_learner(tmp_path / "theirs", base, find_config(base))
    assert all(bool(weight.any(1).all()) for name, weight in learner.beginning.items() if name.endswith("down"))


def test_a_rank_above_that_of_the_layer_is_trained_as_it_is_served(lora, base, tmp_path):
    """peft allows it."""
    file, held = copied(lora, tmp_path / "theirs")
    more = {"lora_A": (0, 0, 0, 32), "lora_B": (0, 32)}
    torch.manual_seed(0)
    for name, weight in held.items():
        wide = torch.nn.functional.pad(weight, next(pad for key, pad in more.items() if key in name))
        held[name] = wide + 0.01 * torch.randn(wide.shape)
    save_file(held, file)
    config = tmp_path / "theirs" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"r": 40}))
    finetune(adapter_config(tmp_path / "theirs", tmp_path, "further", *GIVEN))
    assert json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())["r"] == 40


def test_a_scale_that_is_none_is_told_with_its_folder(lora, tmp_path):
    copied(lora, tmp_path / "theirs")
    config = tmp_path / "theirs" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 0}))
    with pytest.raises(SeedbedError, match="theirs: alpha must be > 0"):
        finetune(adapter_config(tmp_path / "theirs", tmp_path, "further", *GIVEN))


def test_a_base_that_is_in_few_bits_already_stays_so(lora, base, tmp_path):
    """Also where nobody knows over what the adapter was trained."""
    quantize(QuantizeConfig(model=base, out=tmp_path / "nf4", scheme="nf4"))
    copied(lora, tmp_path / "theirs")
    config = tmp_path / "theirs" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": str(tmp_path / "nf4")}))
    finetune(adapter_config(tmp_path / "theirs", tmp_path, "further", *GIVEN))
    assert read_manifest(tmp_path / "run" / "adapter").config["over"] == "nf4"


def test_an_adapter_that_lost_its_base_says_so(lora, tmp_path):
    shutil.copytree(lora / "adapter", tmp_path / "moved")
    config = json.loads((tmp_path / "moved" / "adapter_config.json").read_text())
    (tmp_path / "moved" / "manifest.json").unlink()
    (tmp_path / "moved" / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": "gone/base"})
    )
    with pytest.raises(SeedbedError, match=r"gone/base.*, and there is no such folder"):
        finetune(adapter_config(tmp_path / "moved", tmp_path, "further", *GIVEN))
