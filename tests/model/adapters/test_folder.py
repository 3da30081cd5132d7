"""An adapter's folder is what its weights are, or one clear error, within little memory and time."""

from __future__ import annotations

import json
import random
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from seedbed.errors import DataError, SeedbedError
from seedbed.model.adapters.folder import read_adapter, read_score
from tests.hostile import damage, damaged, memory_within
from tests.random_adapters import random_adapter
from tests.random_models import random_model

BASE = random_model().config
HUNDRED_MB = 100_000_000
OUTPUT = "base_model.model.model.layers.1.self_attn.o_proj"


@pytest.fixture
def folder(tmp_path):
    return random_adapter(tmp_path / "adapter", BASE)


def rewritten(folder, change):
    """With other weights: `change` takes and gives those of the file, by name."""
    file = folder / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)


def reconfigured(folder, **values):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | values), encoding="utf-8")


def refused(folder, base=BASE) -> str:
    with pytest.raises(SeedbedError) as raised:
        read_adapter(folder, base)
    assert "\n" not in raised.value.problem and str(folder) in raised.value.problem
    return raised.value.problem


def test_it_names_our_layers(folder):
    added = read_adapter(folder, BASE)
    assert len(added) == 7 * BASE.layers
    output = added["blocks.1.attention.output"]
    weights = load_file(folder / "adapter_model.safetensors")
    assert torch.equal(output.down_RD, weights[f"{OUTPUT}.lora_A.weight"])
    assert torch.equal(output.up_OR, weights[f"{OUTPUT}.lora_B.weight"])
    assert output.scale == 2


@pytest.mark.parametrize(
    ("config", "scale"),
    [({"r": 4, "lora_alpha": 6}, 1.5), ({"r": 4, "lora_alpha": 6, "use_rslora": True}, 3)],
    ids=["LoRA", "rsLoRA"],
)
def test_the_scale_is_alpha_by_rank_or_by_its_root(config, scale, tmp_path):
    added = read_adapter(random_adapter(tmp_path / "adapter", BASE, **config), BASE)
    assert {each.scale for each in added.values()} == {scale}


def test_a_base_of_another_width_is_refused_in_one_line(folder):
    said = refused(folder, random_model(width=48).config)
    assert "has 48 inputs and 32 outputs, in the base 48 and 48: it was trained over another model" in said


def test_a_base_with_fewer_layers_is_refused(folder):
    assert "the base has no layer model.layers.1." in refused(folder, random_model(layers=1).config)


@pytest.mark.parametrize("rank", [0, -1, 1025, 2**62, 1.5, "4", None, True])
def test_a_rank_that_is_none_is_refused(folder, rank):
    reconfigured(folder, r=rank)
    assert "adapter_config.json: r must be" in refused(folder)


def test_a_rank_that_the_weights_do_not_have_is_refused(folder):
    reconfigured(folder, r=5)
    assert "have ranks 4 and 4, adapter_config.json says 5" in refused(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("bias", "all"), ("modules_to_save", ["lm_head"]), ("rank_pattern", {"q_proj": 2})],
        *[("alpha_pattern", {"q_proj": 2}), ("lora_bias", True), ("layer_replication", [[0, 1]])],
        *[("init_lora_weights", "pissa_niter_4"), ("trainable_token_indices", [1]), ("what_nobody_knows_yet", 1)],
    ],
)
def test_what_would_change_the_result_is_refused_by_name(folder, key, value):
    reconfigured(folder, **{key: value})
    assert f"adapter_config.json: {key} is " in refused(folder)


def test_dora_without_the_lengths_of_rows_is_refused(folder):
    reconfigured(folder, use_dora=True)
    assert "lora_magnitude_vector is missing" in refused(folder)
    lengths = {f"base_model.model.model.layers.{n}.self_attn.o_proj.lora_magnitude_vector": 5 for n in range(2)}

    def of_output(weights):
        return {name: weight for name, weight in weights.items() if "o_proj" in name}

    rewritten(folder, lambda weights: of_output(weights) | {name: torch.ones(size) for name, size in lengths.items()})
    assert "o_proj has shape (5,), the layer 32 outputs" in refused(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda weights: {}, "holds no weights"),
        (lambda weights: weights | {"x": torch.zeros(1)}, "x is no matrix of LoRA"),
        (lambda weights: weights | {f"{OUTPUT}.lora_magnitude_vector": torch.zeros(32)}, "lora_magnitude_vector is no"),
        (lambda weights: {f"{OUTPUT}.lora_A.weight": torch.zeros(4, 32)}, "lora_B.weight is missing"),
        (
            lambda weights: weights | {f"{OUTPUT}.lora_A.weight": torch.zeros(4, 32, 1)},
            "have shapes (4, 32, 1) and (32, 4)",
        ),
        (lambda weights: weights | {f"{OUTPUT}.lora_B.weight": torch.zeros(32, 3)}, "have ranks 4 and 3"),
        (lambda weights: {name: weight.int() for name, weight in weights.items()}, "floating-point"),
        (
            lambda weights: weights | {"base_model.model.lm_head.lora_A.weight": torch.zeros(4, 32)},
            "a change of lm_head",
        ),
    ],
    ids=["none", "stray", "DoRA", "half", "cube", "rank", "whole numbers", "head"],
)
def test_weights_that_are_none_are_refused_by_name(folder, change, said):
    rewritten(folder, change)
    assert said in refused(folder)


def test_experts_of_their_own_are_refused(tmp_path):
    base = random_model(experts=4, experts_active=2, expert_width=20, qk_norm=True).config
    folder = random_adapter(tmp_path / "adapter", base)
    assert len(read_adapter(folder, base)) == 4 * base.layers
    name = "base_model.model.model.layers.0.mlp.experts.0.down_proj.lora_A.weight"
    rewritten(folder, lambda weights: weights | {name: torch.zeros(4, 20)})
    assert "does not serve a change of model.layers.0.mlp.experts.0.down_proj" in refused(folder, base)


def test_a_folder_of_something_else_is_told(folder, tmp_path):
    assert "is no adapter" in refused(tmp_path)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    assert "holds no adapter_model.safetensors: other files of weights can hold code" in refused(folder)


@pytest.mark.parametrize("head", [None, torch.zeros(1, 7)])
def test_a_score_head_that_is_promised_must_be_there_and_fit(head, folder):
    """What peft says of every model that gives scores."""
    assert read_score(folder, BASE) is None
    reconfigured(folder, modules_to_save=["classifier", "score"])
    assert "is the adapter of a reward model: it gives scores, no tokens" in refused(folder)
    rewritten(folder, lambda weights: weights | ({} if head is None else {"base_model.model.score.weight": head}))
    with pytest.raises(DataError, match=r"score.weight (is missing|has shape \(1, 7\)); a reward model over this base"):
        read_score(folder, BASE)


def test_damage_is_told_or_changes_nothing(folder):
    chance = random.Random(0)
    whole = read_adapter(folder, BASE)
    files = [folder / "adapter_config.json", folder / "adapter_model.safetensors"]
    texts = [file.read_bytes() for file in files]
    size = int.from_bytes(texts[1][:8], "little")
    told = 0
    for number in range(200):
        if number % 2:
            damage(files[0], chance)
        else:
            header = damaged(texts[1][8 : 8 + size].decode(), chance)
            length = chance.choice([len(header), len(header), len(header), 2**63, 0, size])
            files[1].write_bytes(length.to_bytes(8, "little") + header + texts[1][8 + size :])
        began = time.monotonic()
        with memory_within(HUNDRED_MB):
            try:
                found = read_adapter(folder, BASE)
                assert found.keys() == whole.keys()
            except SeedbedError as error:
                told += 1
                assert "\n" not in error.problem and len(error.problem) < 600 and str(folder) in error.problem
        assert time.monotonic() - began < 10
        for file, text in zip(files, texts, strict=True):
            file.write_bytes(text)
    assert told > 60


def test_names_of_our_own_serve_where_no_peer_has_the_architecture(tmp_path):
    base = random_model(norm_place="sandwich").config
    assert "blocks.0.feedforward.up" in read_adapter(random_adapter(tmp_path / "adapter", base), base)
    with pytest.raises(DataError, match=r"the base has no layer model\.layers\.0\."):
        read_adapter(random_adapter(tmp_path / "other", BASE), base)
