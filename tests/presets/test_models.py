"""Every preset of a model has the size that its name promises, with and without embeddings."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from seedbed.cli import parser
from seedbed.configuration import list_presets, read_group
from seedbed.model.accounting import multiplied_parameters
from seedbed.model.config import InspectConfig, ModelConfig
from seedbed.model.experts import Stack
from seedbed.model.huggingface.classes import describe_class
from seedbed.model.inspect import inspect_model
from seedbed.model.transformer import Transformer
from seedbed.training.config import PretrainConfig

COUNTS = {
    "byte-mini": (856_832, 824_064),
    "books": (4_983_560, 1_837_832),
    "gpt2-nano": (12_515_520, 2_669_568),
    "gpt2-micro": (30_339_456, 10_647_552),
    "gpt2-small": (51_475_968, 25_220_096),
    "llama-tiny": (23_072_000, 14_683_392),
    "llama-small": (83_898_880, 67_121_664),
    "llama-base": (276_861_696, 251_695_872),
    "moe-small": (17_821_776, 15_724_624),
    "wiki-small": (9_505_536, 6_359_808),
    "wiki-medium": (50_865_664, 38_282_752),
    "wiki-large": (147_869_952, 116_412_672),
    "research-tiny": (57_157_120, 40_379_904),
    "research-small": (200_043_008, 166_488_576),
    "research-base": (1_382_129_664, 1_247_911_936),
    "research-large": (2_521_999_872, 2_354_227_712),
    "research-xl": (12_365_352_960, 11_828_482_048),
}
"""Parameters in all, and without what is only looked up, with the vocabulary that each preset names."""

ACTIVE = {"moe-small": 9_035_856}
"""Parameters that a token goes through, of mixtures of experts; of the others all."""

PAGE = Path(__file__).parents[2] / "docs" / "presets.md"


def read(name: str, *options: str) -> PretrainConfig:
    config: PretrainConfig = (
        parser("pretrain").read(["--config", f"pretrain/{name}", "--data.tokens", "t", "--out", "r", *options]).config
    )
    return config


def vocabulary(name: str) -> int:
    found = next(preset.vocabulary for preset in list_presets() if preset.name == f"pretrain/{name}")
    assert found is not None
    return found


def test_every_model_preset_is_counted_here():
    named = {preset.name.removeprefix("pretrain/") for preset in list_presets() if preset.vocabulary}
    assert named == set(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_inspect_tells_the_counts_of_a_preset(name, capsys):
    counted = inspect_model(InspectConfig(model=f"pretrain/{name}"))["parameters"]
    assert (counted["total"], counted["without_embedding"]) == COUNTS[name]
    assert counted["active"] == ACTIVE.get(name, counted["total"])


@pytest.mark.parametrize("name", COUNTS)
def test_the_model_that_is_built_has_those_counts(name):
    config = replace(read(name).model, vocab_size=vocabulary(name)).resolve()
    with torch.device("meta"):
        model = Transformer(config)
    total = sum(parameter.numel() for parameter in model.parameters())
    looked_up = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Embedding))
    assert (total, total - looked_up) == COUNTS[name]
    stacks = [m.weight for m in model.modules() if isinstance(m, Stack)]
    idle = sum(stack[0].numel() * (config.experts - config.experts_active) for stack in stacks)
    assert total - idle == ACTIVE.get(name, total)


@pytest.mark.parametrize("name", COUNTS)
def test_the_page_lists_both_counts_and_the_context(name):
    row = next(line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{name}` |"))
    for number in (*COUNTS[name], vocabulary(name), read(name).model.context):
        assert f" {number:,} " in row, row


@pytest.mark.parametrize("name", COUNTS)
def test_another_vocabulary_is_taken_from_the_tokenizer(name, capsys):
    assert "vocab_size" not in read_group(f"pretrain/{name}", "model")
    counted = inspect_model(InspectConfig(model=f"pretrain/{name}", vocab_size=1000))
    assert counted["model"]["vocab_size"] == 1000


def test_the_mixture_computes_for_a_token_as_much_as_the_dense_model_of_its_size():
    mixture = replace(read("moe-small").model, vocab_size=8192).resolve()
    dense = ModelConfig(vocab_size=8192, layers=mixture.layers, width=mixture.width).resolve()
    assert multiplied_parameters(dense) < multiplied_parameters(mixture) < 1.01 * multiplied_parameters(dense)
    assert not mixture.has_experts(0) and mixture.experts_shared == 1 and mixture.balance_rate > 0


@pytest.mark.parametrize(
    ("family", "class_name"),
    [("gpt2", "GPT2LMHeadModel"), ("llama", "LlamaForCausalLM"), ("moe", "Dots1ForCausalLM")],
)
def test_a_family_is_saved_as_its_own_class(family, class_name):
    for name in COUNTS:
        if name.startswith(family):
            config = replace(read(name).model, vocab_size=vocabulary(name)).resolve()
            assert re.search(rf"\b{class_name} computes it", describe_class(config)), name


@pytest.mark.parametrize("name", COUNTS)
def test_an_option_wins_over_a_preset(name):
    config = read(name, "--train.batch", "3", "--optimizer.matrix_rate", "0.5", "--model.layers", "2")
    assert (config.train.batch, config.optimizer.matrix_rate, config.model.layers) == (3, 0.5, 2)


@pytest.mark.parametrize("name", COUNTS)
def test_as_many_rows_as_fit_go_at_once(name, capsys):
    """In the memory that the preset names, a fifth of which is left free."""
    path = next(preset.path for preset in list_presets() if preset.name == f"pretrain/{name}")
    room = re.search(r"rows as fit in (\d+) GB", path.read_text(encoding="utf-8"))
    train = read(name).train
    if room is None:  # all of them, or of a model that is divided one
        assert train.micro_batch in (None, 1)
        return
    rows = train.micro_batch or train.batch
    taken, doubled = (
        inspect_model(InspectConfig(model=f"pretrain/{name}", batch=count))["training_bytes"]
        for count in (rows, 2 * rows)
    )
    assert taken <= 0.8e9 * int(room[1]) and (rows == train.batch or doubled > 0.8e9 * int(room[1]))


@pytest.mark.parametrize("name", COUNTS)
def test_rows_of_a_preset_fill_its_batch(name):
    train = read(name).train
    assert train.batch % (train.micro_batch or 1) == 0
