"""What is saved is what is loaded, and nothing else is."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file, save_file

from seedbed.errors import CorruptionError, DataError
from seedbed.model.folder import FIRST_FIELDS, find_model, load_model
from seedbed.runs import MANIFEST, read_manifest, seal
from seedbed.tokenizers import bytes as byte_tokenizer
from tests.random_models import random_model, saved

TOKENIZER = byte_tokenizer.build()


@pytest.fixture
def folder(tmp_path):
    return saved(tmp_path / "model", random_model(tokenizer=TOKENIZER), TOKENIZER)


def rewrite_weights(folder, change):
    """Changes the weights and seals the folder again, so that only their meaning is wrong."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    seal(folder, "model")


def rewrite_json(file, change):
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))
    seal(file.parent, "model")


@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied head"])
def test_a_saved_model_loads_to_the_same_bits(tmp_path, tied):
    model = random_model(tokenizer=TOKENIZER, tied=tied)
    loaded, tokenizer = load_model(saved(tmp_path / "model", model, TOKENIZER))
    assert loaded.config == model.config
    assert tokenizer.hash == TOKENIZER.hash
    weights = dict(loaded.named_parameters())
    assert weights.keys() == dict(model.named_parameters()).keys()
    for name, weight in model.named_parameters():
        assert weights[name].dtype == weight.dtype
        assert torch.equal(weights[name], weight)
    assert not loaded.training


def test_the_same_model_is_the_same_folder(tmp_path):
    first, again = (saved(tmp_path / name, random_model(tokenizer=TOKENIZER), TOKENIZER) for name in "ab")
    assert read_manifest(first).hash == read_manifest(again).hash


def test_a_run_means_its_model(tmp_path):
    folder = saved(tmp_path / "run" / "model", random_model(tokenizer=TOKENIZER), TOKENIZER)
    assert find_model(tmp_path / "run") == folder
    assert load_model(tmp_path / "run")[0].config.width == 32


def test_a_flipped_bit_in_any_file_is_found(folder):
    listed = read_manifest(folder).files
    assert {"model.safetensors", "config.json", "seedbed.json", "tokenizer.json", "tokenizer_config.json"} <= set(
        listed
    )
    for name in [*listed, MANIFEST]:
        whole = (folder / name).read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 2):
            broken = bytearray(whole)
            broken[place] ^= 1
            (folder / name).write_bytes(broken)
            with pytest.raises((CorruptionError, DataError), match=str(folder)):
                load_model(folder)
        (folder / name).write_bytes(whole)
    load_model(folder)


def test_a_missing_file_is_named(folder):
    for name in read_manifest(folder).files:
        (folder / name).rename(folder / "away")
        with pytest.raises((CorruptionError, DataError), match=name):
            load_model(folder)
        (folder / "away").rename(folder / name)


def test_a_tokenizer_of_another_size_is_refused(folder):
    byte_tokenizer.build(specials=False).save(folder)
    seal(folder, "model")
    with pytest.raises(DataError, match="the model has 263 token ids, the tokenizer 256"):
        load_model(folder)


def test_an_unknown_key_of_the_config_is_named(folder):
    rewrite_json(folder / "seedbed.json", lambda values: values["model"].update(hyenas=8))
    with pytest.raises(DataError, match=r"seedbed\.json: model\.hyenas is not known"):
        load_model(folder)


def test_a_folder_of_before_there_were_choices_is_what_it_was(folder):
    def forget(values):
        values["model"] = {key: values["model"][key] for key in FIRST_FIELDS}

    rewrite_json(folder / "seedbed.json", forget)
    assert load_model(folder)[0].config == random_model(tokenizer=TOKENIZER).config


def test_a_choice_that_there_is_not_is_refused(folder):
    rewrite_json(folder / "seedbed.json", lambda values: values["model"].update(positions="absolute"))
    said = r'model\.positions must be one of rope, alibi, learned, sinusoidal, none, got a text \("absolute"\)'
    with pytest.raises(CorruptionError, match=said):
        load_model(folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model": 3}', '{"model": {"layers": "two"}}', "null", "{"])
def test_a_config_that_is_none_is_refused(folder, content):
    (folder / "seedbed.json").write_text(content)
    seal(folder, "model")
    with pytest.raises((CorruptionError, DataError), match=r"seedbed\.json"):
        load_model(folder)


def test_a_missing_weight_is_named(folder):
    rewrite_weights(folder, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(DataError, match=r"the weight model\.layers\.1\.mlp\.up_proj\.weight is missing"):
        load_model(folder)


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.q_proj.bias", "model.layers.7.mlp.up_proj.weight", "x"])
def test_a_weight_of_another_architecture_is_named(folder, name):
    rewrite_weights(folder, lambda weights: weights.update({name: torch.ones(2)}))
    with pytest.raises(DataError, match="is not one of this architecture"):
        load_model(folder)


def test_a_weight_of_another_shape_is_named(folder):
    rewrite_weights(folder, lambda weights: weights.update({"model.norm.weight": torch.ones(31)}))
    with pytest.raises(DataError, match=r"model\.norm\.weight has shape \(31,\), the config promises \(32,\)"):
        load_model(folder)


def test_a_file_that_is_no_safetensors_is_refused(folder):
    (folder / "model.safetensors").write_bytes(b"PK\x03\x04" + bytes(100))
    seal(folder, "model")
    with pytest.raises(CorruptionError, match=r"model\.safetensors"):
        load_model(folder)


def test_a_folder_of_another_kind_is_refused(tmp_path):
    TOKENIZER.save(tmp_path)
    seal(tmp_path, "tokenizer")
    with pytest.raises(DataError, match="tokenizer"):
        load_model(tmp_path)


def test_a_place_where_nothing_is_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        load_model(tmp_path / "nowhere")


def test_the_exact_config_stands_beside_the_weights(folder):
    values = json.loads((folder / "seedbed.json").read_text())
    assert values["model"] == asdict(random_model(tokenizer=TOKENIZER).config)
    assert values["tokenizer"] == TOKENIZER.hash


def test_a_model_folder_loads_without_the_machinery_of_checkpoints(folder):
    """Which takes as long to import as half of torch."""
    code = "import sys; from pathlib import Path; from seedbed.model.folder import load_model\n"
    code += f"load_model(Path({str(folder)!r})); print('torch.distributed.checkpoint' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
