"""Shards as Hugging Face lays them out, dtypes, and headers that are believed only where the file bears them out."""

from __future__ import annotations

import json
import os
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import seedbed
from seedbed.errors import ConfigError, CorruptionError, DataError
from seedbed.inference.engine import Engine
from seedbed.model import weights as room
from seedbed.model.folder import load_model
from seedbed.model.weights import INDEX, WEIGHTS, read_header
from seedbed.runs import seal
from seedbed.tokenizers import bytes as byte_tokenizer
from tests.random_models import random_model, saved

TOKENIZER = byte_tokenizer.build()


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and x.dtype == y.dtype and torch.equal(x, y) for (a, x), (b, y) in pairs)


# Shards --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sharded(tmp_path, monkeypatch):
    """A model and its folder of several shards."""
    monkeypatch.setattr(room, "SHARD_BYTES", 20_000)
    model = random_model(tokenizer=TOKENIZER)
    return model, saved(tmp_path / "model", model, TOKENIZER)


def test_a_large_model_is_written_in_shards_and_comes_back_to_the_same_bits(sharded):
    model, folder = sharded
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(files) > 2 and files == [
        f"model-{n:05d}-of-{len(files):05d}.safetensors" for n in range(1, len(files) + 1)
    ]
    sizes = [sum(weight.nbytes for weight in load_file(folder / file).values()) for file in files]
    index = json.loads((folder / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(sizes) == sum(weight.nbytes for weight in model.parameters())
    for file, size in zip(files, sizes, strict=True):  # only a weight that is too large by itself exceeds the limit
        assert size <= 20_000 or len(load_file(folder / file)) == 1
        assert {name for name, place in index["weight_map"].items() if place == file} == set(load_file(folder / file))
    assert same(load_model(folder)[0], model)


@pytest.mark.parametrize("shard_bytes", [20_000, 10**9])
def test_weights_may_be_read_by_whom_this_users_files_may_be_read(shard_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "SHARD_BYTES", shard_bytes)
    before = os.umask(0o027)
    try:
        folder = saved(tmp_path / "model", random_model(tokenizer=TOKENIZER), TOKENIZER)
    finally:
        os.umask(before)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in folder.iterdir()}
    assert set(modes.values()) == {"0o640"}, modes


def test_transformers_loads_the_shards(sharded):
    model, folder = sharded
    theirs, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    tokens_BT = torch.arange(60).view(2, 30)
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens_BT).logits, model(tokens_BT), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values["weight_map"].popitem(),
        lambda values: values["weight_map"].update(more=values["weight_map"]["model.norm.weight"]),
        lambda values: values["weight_map"].update({"model.norm.weight": "../model.safetensors"}),
        lambda values: values["weight_map"].update({"model.norm.weight": 3}),
        lambda values: values["weight_map"].update({"model.norm.weight": "nowhere.safetensors"}),
        lambda values: values.update(weight_map=[]),
        lambda values: values.clear(),
    ],
)
def test_an_index_that_does_not_fit_its_shards_is_refused(sharded, change):
    _, folder = sharded
    values = json.loads((folder / INDEX).read_text())
    change(values)
    (folder / INDEX).write_text(json.dumps(values))
    seal(folder, "model")
    with pytest.raises(
        (CorruptionError, DataError), match=r"index\.json|nowhere|lm_head\.weight|head\.weight is missing"
    ):
        load_model(folder)


# Dtypes --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def half(tmp_path):
    model = random_model(tokenizer=TOKENIZER).bfloat16()
    return model, saved(tmp_path / "model", model, TOKENIZER)


def test_a_bf16_model_loads_as_bf16_here_and_in_transformers(half):
    model, folder = half
    values = json.loads((folder / "config.json").read_text())
    assert values["dtype"] == values["torch_dtype"] == "bfloat16"
    loaded = load_model(folder)[0]
    assert loaded.embedding.weight.dtype is torch.bfloat16 and same(loaded, model)
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    assert theirs.dtype is torch.bfloat16
    tokens_BT = torch.arange(60).view(2, 30)
    with torch.no_grad():
        ours, exact = loaded(tokens_BT).float(), load_model(folder, dtype="float32")[0](tokens_BT)
        assert (ours - exact).abs().mean() <= (theirs(tokens_BT).logits.float() - exact).abs().mean() * 1.1


def test_a_model_loads_in_the_dtype_that_is_asked_for(half):
    model, folder = half
    wide = load_model(folder, dtype=torch.float32)[0]
    assert same(wide, model.float())
    engine = seedbed.load(folder, device="cpu", dtype="float16")
    assert engine.model.embedding.weight.dtype is torch.float16
    with pytest.raises(ConfigError, match="dtype must be one of float32, bfloat16, float16, float64, got int8"):
        seedbed.load(folder, device="cpu", dtype="int8")


def test_a_bf16_model_generates(half):
    _, folder = half
    texts = [Engine.load(folder).generate(["Once", "A longer one"], max_tokens=8, temperature=0) for _ in range(2)]
    assert texts[0] == texts[1]


def test_weights_of_another_dtype_than_the_config_says_are_refused(half):
    _, folder = half
    weights = {name: weight.float() for name, weight in load_file(folder / WEIGHTS).items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    seal(folder, "model")
    with pytest.raises(DataError, match=r"config\.json: dtype must be float32"):
        load_model(folder)
    weights["model.norm.weight"] = weights["model.norm.weight"].half()
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    seal(folder, "model")
    with pytest.raises(DataError, match="of one floating-point dtype, they are float16 and float32"):
        load_model(folder)


# Headers -------------------------------------------------------------------------------------------------------------


def file_of(header: bytes, content: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + content


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "its header claims|not valid|Expecting"),
        (b"\x00\x00", "its header claims|Expecting"),
        (file_of(b"{}", length=2**63), "its header claims 9,223,372,036,854,775,808 bytes"),
        (file_of(b"[" * 100_000), "nested too deeply"),
        (file_of(b"[]"), "not a JSON object"),
        (file_of(b'{"a": 3}'), "a has no dtype"),
        (file_of(b'{"a": {"dtype": ["F32"], "shape": [1]}}'), "a has no dtype"),
        (file_of(b'{"a": {"dtype": "F32", "shape": [1.5]}}'), "a has no shape"),
        (file_of(b'{"a": {"dtype": "F32", "shape": [-1, -4]}}'), "a has no shape"),
        (
            file_of(b'{"a": {"dtype": "F32", "shape": [1099511627776], "data_offsets": [0, 4]}}', b"1234"),
            "promises 4,3",
        ),
        (file_of(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}', b"123456"), "it holds 6"),
    ],
)
def test_a_header_that_the_file_does_not_bear_out_is_refused(tmp_path, raw, said):
    (tmp_path / "x.safetensors").write_bytes(raw)
    with pytest.raises(CorruptionError, match=said):
        read_header(tmp_path / "x.safetensors")
