"""`inspect` tells the same numbers of a preset, a file and a folder."""

from __future__ import annotations

import pytest

from seedbed.errors import ConfigError, DataError
from seedbed.model.accounting import training_bytes
from seedbed.model.config import InspectConfig, ModelConfig
from seedbed.model.inspect import inspect_model
from seedbed.tokenizers import bytes as byte_tokenizer
from tests.random_models import random_model, saved

TOKENIZER = byte_tokenizer.build()


def test_a_folder_is_told_as_it_is(tmp_path, capsys):
    model = random_model(tokenizer=TOKENIZER)
    folder = saved(tmp_path / "model", model, TOKENIZER)
    result = inspect_model(InspectConfig(model=str(folder)))
    total = sum(parameter.numel() for parameter in model.parameters())
    assert result["parameters"]["total"] == total
    assert result["parameters"]["without_embedding"] == total - model.embedding.weight.numel()
    assert result["weight_bytes"] == 4 * total
    assert result["length"] == 64
    assert result["training_flops_per_token"] == 3 * result["forward_flops_per_token"]
    out = capsys.readouterr().out
    assert f"{total:,}" in out and "FLOPs a token" in out


def test_a_file_is_told_before_it_is_trained(tmp_path):
    (tmp_path / "small.yaml").write_text("model:\n  layers: 1\n  width: 64\n  tied: true\n")
    result = inspect_model(InspectConfig(model=str(tmp_path / "small.yaml"), vocab_size=100, length=10))
    assert result["parameters"]["total"] == 100 * 64 + 4 * 64 * 64 + 3 * 64 * 192 + 2 * 64 + 2 * 64 + 64
    assert result["cache_bytes_per_sequence"] == 2 * 64 * 10 * 4


def test_a_preset_without_a_vocabulary_asks_for_its_size(tmp_path):
    (tmp_path / "small.yaml").write_text("model: {layers: 1}\n")
    with pytest.raises(ConfigError, match="leaves the vocabulary to the tokenizer: inspect needs --vocab_size"):
        inspect_model(InspectConfig(model=str(tmp_path / "small.yaml")))


@pytest.mark.parametrize("content", [b"model: [", b"\xff\xfe\x00"])
def test_a_file_that_is_not_yaml_is_refused(tmp_path, content):
    (tmp_path / "small.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"small\.yaml.* not (YAML|text)"):
        inspect_model(InspectConfig(model=str(tmp_path / "small.yaml"), vocab_size=9))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("model: {context: 2001-01-01}", "context must be a whole number, got '2001-01-01'"),
        ("model: " + "[" * 3000, "nested more than 32 deep"),
        ("model: &a {layers: *a}", "nested more than 32 deep"),
        ("model: {layers: {a: b}}", "line 1: model.layers must be a single value"),
        ("model: {help: 1}", "unknown key model.help"),
        ("model: [1]", "model must be a group of keys"),
        ("[1]", "has no group `model`"),
        ("model: {context: 100000000000}", "context must be between 1 and 1048576, got 100000000000"),
    ],
)
def test_a_file_whose_model_cannot_be_read_is_told_in_one_line(tmp_path, content, said):
    (tmp_path / "small.yaml").write_text(content)
    with pytest.raises(ConfigError) as caught:
        inspect_model(InspectConfig(model=str(tmp_path / "small.yaml"), vocab_size=9))
    assert said in caught.value.problem and "\n" not in caught.value.problem


def test_dotted_keys_of_a_model_count(tmp_path, capsys):
    (tmp_path / "small.yaml").write_text("model.layers: 7\nmodel.heads:\n")
    assert inspect_model(InspectConfig(model=str(tmp_path / "small.yaml"), vocab_size=9))["model"]["layers"] == 7


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(DataError):
        inspect_model(InspectConfig(model=str(tmp_path)))


def test_training_memory_is_not_that_of_all_logits():
    """They exist a chunk at a time: of 16 rows of 1,024 tokens those of a vocabulary of 50,257 would take 3.3 GB."""
    result = inspect_model(InspectConfig(model="pretrain/gpt2-nano"))
    assert result["length"] == 1024 and result["training_bytes"] < 1.6e9
    larger = inspect_model(InspectConfig(model="pretrain/gpt2-nano", batch=32))["training_bytes"]
    small, smaller = (
        inspect_model(InspectConfig(model="pretrain/gpt2-nano", vocab_size=8192, batch=batch))["training_bytes"]
        for batch in (32, 16)
    )
    assert larger - result["training_bytes"] == small - smaller


def test_training_memory_grows_with_the_tokens_and_the_optimizer():
    config = ModelConfig(vocab_size=100, layers=1, width=64).resolve()
    assert training_bytes(config, 20) - training_bytes(config, 10) == training_bytes(config, 10) - training_bytes(
        config, 0
    )
    weights = sum(
        p.numel()
        for p in random_model(
            **{
                "vocab_size": 100,
                "layers": 1,
                "width": 64,
                "heads": 1,
                "kv_heads": 1,
                "head_width": 64,
                "ff_width": 192,
            }
        ).parameters()
    )
    assert training_bytes(config, 0) == 4 * 4 * weights
    assert training_bytes(config, 0, optimizer_numbers=1) == 3 * 4 * weights
