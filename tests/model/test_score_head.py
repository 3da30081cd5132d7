"""A model under a score head is saved, loaded and told as what it is, and nobody takes it for one that speaks."""

from __future__ import annotations

import json

import pytest
import torch

from seedbed.errors import ConfigError
from seedbed.inference.engine import Engine
from seedbed.model.accounting import count_parameters, multiplied_parameters
from seedbed.model.config import InspectConfig
from seedbed.model.folder import load_model, read_config
from seedbed.model.inspect import inspect_model
from seedbed.model.score_head import with_score_head
from seedbed.optim.groups import parameter_kinds
from seedbed.tokenizers import bytes as byte_tokenizer
from tests.random_models import random_model, randomise, saved

TOKENIZER = byte_tokenizer.build()
TOKENS = torch.arange(20)[None] + 30


def scoring(**config):
    return random_model(tokenizer=TOKENIZER, head="score", **config)


def test_a_fresh_score_is_nought_everywhere_and_the_blocks_are_the_models_own():
    model = random_model(tokenizer=TOKENIZER)
    scored = with_score_head(model)
    assert torch.equal(scored.hidden(TOKENS), model.hidden(TOKENS))
    assert torch.equal(scored.value(scored.hidden(TOKENS)), torch.zeros(1, 20))
    assert "head.weight" not in dict(scored.named_parameters())
    assert with_score_head(scored) is scored


@pytest.mark.parametrize("tied", [False, True])
def test_a_folder_gives_the_same_scores_back(tied, tmp_path):
    model = scoring(tied=tied)
    loaded, _ = load_model(saved(tmp_path / "model", model, TOKENIZER), scores=True)
    assert torch.equal(loaded.value(loaded.hidden(TOKENS)), model.value(model.hidden(TOKENS)))
    assert not (tmp_path / "model" / "generation_config.json").exists()


def test_an_architecture_of_no_class_is_saved_by_our_names(tmp_path):
    model = scoring(norm_place="sandwich")
    folder = saved(tmp_path / "model", model, TOKENIZER)
    assert not (folder / "config.json").exists()
    assert torch.equal(load_model(folder, scores=True)[0].score.weight, model.score.weight)


def test_whoever_wants_words_refuses_it_in_one_line(tmp_path):
    folder = saved(tmp_path / "model", scoring(), TOKENIZER)
    for refused in (lambda: load_model(folder), lambda: Engine.load(folder), lambda: Engine(scoring(), TOKENIZER)):
        with pytest.raises(ConfigError, match="is a reward model or a critic: it gives scores, no tokens"):
            refused()


def test_the_command_line_says_so_too(tmp_path, seedbed):
    saved(tmp_path / "model", scoring(), TOKENIZER)
    done = seedbed("generate", "--model", "model", "--prompt", "Once")
    assert done.returncode == 2 and done.stderr.startswith("seedbed: model is a reward model or a critic")


@pytest.mark.parametrize("tied", [False, True])
def test_its_costs_are_those_of_one_row(tied):
    model = scoring(tied=tied)
    assert count_parameters(model.config).total == sum(weight.numel() for weight in model.parameters())
    assert count_parameters(model.config).head == model.config.width
    assert multiplied_parameters(model.config) == count_parameters(model.config).matrices + model.config.width


def test_inspect_tells_what_it_is(tmp_path, capsys):
    folder = saved(tmp_path / "model", scoring(), TOKENIZER)
    result = inspect_model(InspectConfig(model=str(folder)))
    assert result["parameters"]["head"] == 32
    assert "head of one score: a reward model or a critic" in capsys.readouterr().out
    assert result["huggingface"] == "The Hugging Face class Qwen3ForSequenceClassification computes it."


def test_a_score_moves_at_the_rate_of_a_head():
    model = scoring()
    assert parameter_kinds(model)["head"] == [model.score.weight]


def test_a_config_of_before_has_a_head_of_tokens(tmp_path):
    model = random_model(tokenizer=TOKENIZER)
    folder = saved(tmp_path / "model", model, TOKENIZER)
    exact = json.loads((folder / "seedbed.json").read_text())
    assert exact["model"].pop("head") == "tokens"
    (folder / "seedbed.json").write_text(json.dumps(exact))
    assert read_config(folder) == model.config


def test_fresh_scores_begin_as_other_heads_do():
    torch.manual_seed(0)
    model = scoring(zero_projections=False)
    randomise(model)
    model.initialise()
    assert model.score.weight.std() > 0
    model = scoring()
    model.initialise()
    assert not model.score.weight.any()
