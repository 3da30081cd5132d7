"""Continued pretraining: the weights, tokenizer and architecture of another model, on text of the same vocabulary."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from seedbed.configuration import from_arguments, load_config
from seedbed.errors import ConfigError, DataError
from seedbed.model.folder import load_model, save_model
from seedbed.runs import read_manifest
from seedbed.tokenizers import bytes as byte_tokenizer
from seedbed.tokenizers import characters
from seedbed.training.config import PretrainConfig
from seedbed.training.pretrain import pretrain
from tests.tiny import TINY_ARGUMENTS, make_tokens, records, save_tiny_model


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base") / "model", layers=2, width=24, heads=3)


def config(tokens: Path, out: Path, base: Path, *arguments: str) -> PretrainConfig:
    settings = (f"--data.tokens={tokens}", f"--out={out}", f"--init={base}", "--train.steps=2", "--train.device=cpu")
    return from_arguments(PretrainConfig, [*settings, "--data.length=16", "--train.log_every=1", *arguments])


def run(*given: Any) -> dict[str, Any]:
    return pretrain(config(*given))


def weights(model: Path) -> list[torch.Tensor]:
    return list(load_model(model)[0].parameters())


def test_training_starts_from_the_weights_of_the_other_model(tokens, base, tmp_path):
    none = ("--optimizer.matrix_rate=1e-9", "--optimizer.embedding_rate=1e-9")
    run(tokens, tmp_path / "run", base, *none, "--optimizer.head_rate=1e-9", "--optimizer.vector_rate=1e-9")
    for own, other in zip(weights(tmp_path / "run"), weights(base), strict=True):
        assert torch.allclose(own, other, rtol=0, atol=1e-6)


def test_a_bf16_model_is_trained_in_fp32(tokens, base, tmp_path):
    """bf16 has 8 bits: a weight would not take up a step smaller than a 256th of it."""
    model, tokenizer = load_model(base, dtype="bfloat16")
    save_model(tmp_path / "half", model, tokenizer, inputs={}, card={})
    run(tokens, tmp_path / "run", tmp_path / "half", "--optimizer.matrix_rate=1e-5")
    trained = load_model(tmp_path / "run")[0]
    assert {weight.dtype for weight in trained.parameters()} == {torch.float32}
    begun, ended = model.blocks[0].attention.query.weight, trained.blocks[0].attention.query.weight
    assert not torch.equal(begun.float(), ended) and (begun.float() - ended).abs().max() < 1e-3


def test_it_learns_and_names_what_it_started_from(tokens, base, tmp_path):
    run(tokens, tmp_path / "run", base)
    assert any(not torch.equal(own, other) for own, other in zip(weights(tmp_path / "run"), weights(base), strict=True))
    inputs = {"tokens": read_manifest(tokens).hash, "init": read_manifest(base).hash}
    assert read_manifest(tmp_path / "run").inputs == read_manifest(tmp_path / "run" / "model").inputs == inputs
    assert load_config(tmp_path / "run" / "config.yaml", PretrainConfig).model == load_model(base)[0].config


def test_a_run_and_a_checkpoint_serve_as_well_and_a_run_resumes(tokens, base, tmp_path):
    run(tokens, tmp_path / "first", base)
    for start in ("first", "first/checkpoints/step_00000002"):
        out = tmp_path / f"from {Path(start).name}"
        assert run(tokens, out, tmp_path / start)["finished"]
        assert run(tokens, out, tmp_path / start)["resumed_at"] == 2
    one, other = (tmp_path / name / "metrics.jsonl" for name in ("from first", "from step_00000002"))
    assert one.read_bytes() == other.read_bytes()


def test_its_chat_template_stays(tokens, base, tmp_path):
    model, tokenizer = load_model(base)
    template = "{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    save_model(tmp_path / "other", model, tokenizer.with_template(template), inputs={}, card={})
    run(tokens, tmp_path / "run", tmp_path / "other")
    assert load_model(tmp_path / "run")[1].chat_template == template


def test_text_of_another_vocabulary_is_refused(base, tmp_path):
    other = make_tokens(tmp_path, characters.train(["the seed of a small tree"]))
    with pytest.raises(DataError, match="but this tokenizer has 263 tokens"):
        run(other, tmp_path / "run", base)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("key", "value", "own"), [("width", 32, 24), ("layers", 3, 2), ("tied", "true", False)])
def test_another_architecture_is_refused(key, value, own, tokens, base, tmp_path):
    with pytest.raises(ConfigError, match=rf"model\.{key} is .* has {own}"):
        run(tokens, tmp_path / "run", base, f"--model.{key}={value}")
    assert not (tmp_path / "run").exists()


def test_its_own_architecture_may_be_given(tokens, base, tmp_path):
    assert run(tokens, tmp_path / "run", base, "--model.width=24", "--model.context=32", "--model.layers=2")["finished"]


def test_a_run_goes_on_only_from_what_it_started_from(tokens, base, tmp_path):
    run(tokens, tmp_path / "run", base)
    other = save_tiny_model(tmp_path / "other", layers=2, width=24, heads=3)
    with pytest.raises(ConfigError, match=r"was begun with init .*model, now it is .*other"):
        run(tokens, tmp_path / "run", other)
    assert records(tmp_path / "run")[-1]["step"] == 2


def test_a_model_that_is_not_there_is_told(tokens, tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist"):
        run(tokens, tmp_path / "run", tmp_path / "nowhere")


def test_a_mixture_names_its_folders_and_tells_what_packing_did(tokens, tmp_path):
    parts = f"--data.mixture=[{{tokens: {tokens}, weight: 1}}, {{tokens: {tokens}, weight: 1}}]"
    settings = (parts, "--data.packing=best_fit", f"--out={tmp_path / 'run'}", "--train.steps=1", *TINY_ARGUMENTS)
    result = pretrain(from_arguments(PretrainConfig, settings))
    digest = read_manifest(tokens).hash
    assert read_manifest(tmp_path / "run").inputs == {"tokens 1": digest, "tokens 2": digest}
    assert result["best_fit"][str(tokens)]["cropped"] == 0 and result["val_bits_per_byte"] > 0
    assert "padding" in (tmp_path / "run" / "training.log").read_text()


def test_validation_tells_each_folder_of_a_mixture_apart(tokens, tmp_path):
    places = [tmp_path / name / "tokens" for name in ("one", "two ñ")]
    for place in places:
        shutil.copytree(tokens, place)
    parts = f"--data.mixture=[{', '.join(f'{{tokens: {place}, weight: 1}}' for place in places)}]"
    settings = (parts, f"--out={tmp_path / 'run'}", "--train.steps=1", *TINY_ARGUMENTS)
    result = pretrain(from_arguments(PretrainConfig, settings))
    last = [record for record in records(tmp_path / "run") if "val_loss" in record][-1]
    each = [last[f"val_loss/{name}/tokens"] for name in ("one", "two ñ")]
    assert min(each) <= last["val_loss"] <= max(each) < min(each) + 0.01
    assert result["val_bits_per_byte/one/tokens"] == last["val_bits_per_byte/one/tokens"]


def test_the_vocabulary_grows_when_that_is_allowed_and_is_refused_otherwise(base, tmp_path):
    larger = make_tokens(tmp_path, byte_tokenizer.build().with_tokens(["<tool>"]))
    with pytest.raises(DataError, match="was made with a vocabulary of 264"):
        run(larger, tmp_path / "refused", base)
    out = tmp_path / "grown"
    assert run(larger, out, base, "--resize_vocabulary=true")["finished"]
    assert run(larger, out, base, "--resize_vocabulary=true")["resumed_at"] == 2
    model, tokenizer = load_model(out)
    assert model.config.vocab_size == tokenizer.vocab_size == load_model(base)[0].config.vocab_size + 1
