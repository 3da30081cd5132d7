"""A model folder from a stranger is the model that its weights are, or one clear error: within little memory and time.

Manifests are made anew after each change: who writes a hostile folder can hash it.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import time
from dataclasses import replace

import pytest
import torch

from seedbed.errors import SeedbedError
from seedbed.model.folder import load_model
from seedbed.runs import MANIFEST, seal
from seedbed.tokenizers import byte_pair
from seedbed.tokenizers import bytes as byte_tokenizer
from seedbed.tokenizers.chat import encode_conversation
from seedbed.tokenizers.tokenizer import Tokenizer
from tests.hostile import damage, damaged, memory_within
from tests.random_models import random_model, saved

TOKENIZER = byte_tokenizer.build()
FILES = ("config.json", "seedbed.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json")
HUNDRED_MB = 100_000_000
CHAT = [{"role": "user", "content": "Hi <|im_end|>"}, {"role": "assistant", "content": "Ho"}]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A model and its folder."""
    model = random_model(tokenizer=TOKENIZER)
    return model, saved(tmp_path_factory.mktemp("original") / "model", model, TOKENIZER)


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original[1], tmp_path / "model")


OF_NO_CONSEQUENCE = {
    **{"embedding_std": 1.0, "initial_std": None, "zero_projections": True, "dropout": 0.0},
    "sparse_summary": 8,
}
"""How weights would be drawn and trained is nothing to a model that has them; and it has no block-sparse layer."""


def outcome(folder, model) -> str:
    """ "the model", or the problem; every other ending fails."""
    began = time.monotonic()
    with memory_within(HUNDRED_MB):
        try:
            loaded, tokenizer = load_model(folder)
        except SeedbedError as error:
            assert "\n" not in error.problem and len(error.problem) < 600
            assert str(folder) in error.problem, error.problem
            return error.problem
        finally:
            assert time.monotonic() - began < 10
    assert replace(loaded.config, **OF_NO_CONSEQUENCE) == replace(model.config, **OF_NO_CONSEQUENCE)
    assert tokenizer.hash == TOKENIZER.hash
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))
    return "the model"


@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_told_or_changes_nothing(original, folder, file):
    chance = random.Random(file)
    whole = (folder / file).read_bytes()
    told = 0
    for _ in range(80):
        damage(folder / file, chance)
        seal(folder, "model")
        problem = outcome(folder, original[0])
        told += problem != "the model"
        # What another file contradicts may be told of either.
        assert problem == "the model" or any(name in problem for name in FILES) or str(folder) in problem
        (folder / file).write_bytes(whole)
    assert told > 20


def test_a_damaged_header_of_the_weights_is_told_or_changes_nothing(original, folder):
    chance = random.Random(1)
    raw = (folder / "model.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    for _ in range(80):
        header = damaged(raw[8 : 8 + size].decode(), chance)
        length = chance.choice([len(header), len(header), len(header), 2**63, 0, size])
        (folder / "model.safetensors").write_bytes(length.to_bytes(8, "little") + header + raw[8 + size :])
        seal(folder, "model")
        outcome(folder, original[0])


@pytest.mark.parametrize(
    "deep", [b"[" * 100_000, b'{"a":' * 100_000, b'{"files":' + b"[" * 100_000, b'{"version": 1e999}']
)
def test_a_manifest_that_is_none_is_told(original, folder, deep):
    (folder / MANIFEST).write_bytes(deep)
    assert MANIFEST in outcome(folder, original[0])


def test_a_damaged_manifest_is_told(original, folder):
    chance = random.Random(2)
    whole = (folder / MANIFEST).read_bytes()
    for _ in range(80):
        damage(folder / MANIFEST, chance)
        if (folder / MANIFEST).read_bytes() != whole:
            assert MANIFEST in outcome(folder, original[0])
        (folder / MANIFEST).write_bytes(whole)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("width", 10**7, "width must be between 1 and 1048576, got 10000000"),
        ("width", 2**20, "has shape .*, the config promises"),
        ("layers", 10**9, "layers must be between 1 and 10000, got 1000000000"),
        ("layers", 10_000, r"model\.layers\.10\.input_layernorm\.weight is missing"),
        ("context", 10**9, "context must be between 1 and 1048576"),
        ("vocab_size", 10**9, "vocab_size must be between"),
        ("head_width", 2**20, "the config promises"),
        ("ff_width", "48", 'model.ff_width must be a whole number, got a text \\("48"\\)'),
        ("heads", 4.0, "model.heads must be a whole number, got 4.0"),
        ("heads", True, "model.heads must be a whole number, got true"),
        ("rope_base", 10**30, "model.rope_base must be a number, got 1000"),
        ("rope_base", None, "model.rope_base must be a number, got null"),
        ("tied", 1, "model.tied must be true or false, got 1"),
        ("tied", True, r"lm_head\.weight is not one of this architecture"),
        ("pad_id", 10**12, "pad_id is 1,000,000,000,000, but there are 263 ids"),
        ("pad_id", 100, "the model's pad_id is 100, the tokenizer's 256"),
        ("positions", "absolute", "model.positions must be one of rope, alibi"),
        ("norm_place", "post", r"blocks\.0\.attention\.key\.weight is missing"),
    ],
)
def test_a_size_that_the_weights_do_not_have_is_told_with_its_field(original, folder, field, value, said):
    values = json.loads((folder / "seedbed.json").read_text())
    values["model"][field] = value
    (folder / "seedbed.json").write_text(json.dumps(values))
    seal(folder, "model")
    assert re.search(said, outcome(folder, original[0]))


def test_a_missing_field_is_told(original, folder):
    values = json.loads((folder / "seedbed.json").read_text())
    del values["model"]["rope_base"]
    (folder / "seedbed.json").write_text(json.dumps(values))
    seal(folder, "model")
    assert outcome(folder, original[0]) == f"{folder / 'seedbed.json'}: model.rope_base is missing"


def test_a_long_context_costs_nothing_before_it_is_used(tmp_path):
    model = random_model(tokenizer=TOKENIZER, context=2**20)
    folder = saved(tmp_path / "model", model, TOKENIZER)
    assert outcome(folder, model) == "the model"


def test_a_config_for_others_that_says_something_else_is_refused(original, folder):
    """Else transformers would load another model from the folder than we do."""
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"rope_theta": 5.0}))
    seal(folder, "model")
    assert outcome(folder, original[0]).startswith(f"{folder / 'config.json'}: rope_theta must be 10000.0")


def test_how_others_sample_is_a_persons_own_affair(original, folder):
    values = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(values | {"temperature": 0.1, "top_k": 5}))
    seal(folder, "model")
    assert outcome(folder, original[0]) == "the model"


# Tokenizers ----------------------------------------------------------------------------------------------------------

MAKERS = {"bytes": byte_tokenizer.build, "byte_pair": lambda: byte_pair.train(["the cat sat on the mat " * 50], 270)}


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("kind", MAKERS)
def test_a_damaged_tokenizer_is_told_or_works(tmp_path, kind, file):
    MAKERS[kind]().save(tmp_path)
    whole = (tmp_path / file).read_bytes()
    chance = random.Random(file + kind)
    for _ in range(100):
        damage(tmp_path / file, chance)
        with memory_within(HUNDRED_MB):
            try:
                tokenizer = Tokenizer.load(tmp_path)
                assert len(tokenizer.token_bytes()) == tokenizer.vocab_size < 5_000
                tokenizer.encode("The text, 木.")
                encode_conversation(tokenizer, CHAT)
            except SeedbedError as error:
                assert "\n" not in error.problem
        (tmp_path / file).write_bytes(whole)


def test_an_id_far_beyond_the_vocabulary_is_refused(tmp_path):
    TOKENIZER.save(tmp_path)
    values = json.loads((tmp_path / "tokenizer.json").read_text())
    values["model"]["vocab"]["far"] = 4_000_000_000
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    with (
        memory_within(HUNDRED_MB),
        pytest.raises(SeedbedError, match="264 entries, but 'far' has the id 4,000,000,000"),
    ):
        Tokenizer.load(tmp_path)
