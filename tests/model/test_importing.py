"""Folders that transformers' `save_pretrained` wrote serve wherever a model folder does."""

from __future__ import annotations

import io
import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from seedbed.cli import main
from seedbed.errors import DataError
from seedbed.model.folder import load_model
from seedbed.model.importing import SPARE_ROWS, import_config, import_model
from seedbed.tokenizers import bytes as byte_tokenizer
from tests.random_models import randomise
from tests.tiny import make_tokens, save_tiny_model

TOKENIZER = byte_tokenizer.build()

LLAMA_SIZES = {
    **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "max_position_embeddings": 64},
}
THEIRS = {
    "Llama": LLAMA_SIZES,
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "Mixtral": LLAMA_SIZES | {"num_local_experts": 4},
}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return make_tokens(tmp_path_factory.mktemp("tiny"))


def save_theirs(folder, kind="Llama", *, rows=TOKENIZER.vocab_size, tokenizer=TOKENIZER, **how):
    """A random model with transformers' own ids for its special tokens, and a tokenizer beside it unless it is None."""
    config = getattr(transformers, f"{kind}Config")(vocab_size=rows, **THEIRS[kind])
    theirs = AutoModelForCausalLM.from_config(config).eval()
    randomise(theirs)
    theirs.save_pretrained(folder, **how)
    if tokenizer is not None:
        tokenizer.save(folder)
    return theirs


@torch.no_grad()
def assert_same(ours, theirs):
    tokens_BT = torch.randint(TOKENIZER.vocab_size, (2, 50), generator=torch.Generator().manual_seed(0))
    wanted_BTV = theirs(tokens_BT).logits[..., : TOKENIZER.vocab_size]
    assert wanted_BTV.std() > 0.05  # else 1e-5 would be no promise
    torch.testing.assert_close(ours(tokens_BT), wanted_BTV, rtol=0, atol=1e-5)


@pytest.mark.parametrize("how", [{}, {"max_shard_size": "20KB"}], ids=["one file", "shards"])
@pytest.mark.parametrize("kind", THEIRS)
def test_it_loads_with_its_tokenizer_and_computes_the_same(kind, how, tmp_path):
    theirs = save_theirs(tmp_path, kind, **how)
    assert (tmp_path / "model.safetensors").exists() != bool(how)
    model, tokenizer = load_model(tmp_path)
    assert_same(model, theirs)
    assert tokenizer.hash == TOKENIZER.hash
    ids = {name: getattr(model.config, name) for name in ("pad_id", "bos_id", "eos_id")}
    assert ids == {name: getattr(TOKENIZER, name) for name in ids}


@pytest.mark.parametrize("kind", THEIRS)
def test_every_command_that_reads_a_model_takes_it(kind, tokens, tmp_path, capsys, monkeypatch):
    model = str(tmp_path / "theirs")
    theirs = save_theirs(tmp_path / "theirs", kind)
    rows = [{"prompt": f"What is {i}?", "response": f"It is {i}."} for i in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = ("--train.steps", "1", "--train.device", "cpu", "--train.batch", "2")

    assert main(["inspect", "--model", model, "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["parameters"]["total"] == sum(weight.numel() for weight in theirs.parameters())
    assert main(["generate", "--model", model, "--prompt", "Once", "--max_tokens", "3", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith("Once")
    monkeypatch.setattr("sys.stdin", io.StringIO("Hi\n"))
    assert main(["chat", "--model", model, "--max_tokens", "3", "--device", "cpu"]) == 0
    corpus = str(tokens.parent)
    report = ("--data_dir", corpus, "--tasks", "bits_per_byte", "--max_bytes", "200", "--out", str(tmp_path / "report"))
    assert main(["evaluate", "--model", model, *report]) == 0
    run = ("--init", model, "--data.tokens", str(tokens), "--data.length", "16", "--train.validation_rows", "2")
    assert main(["pretrain", *run, *train, "--out", str(tmp_path / "run")]) == 0
    tuned = ("--model", model, "--data", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "tuned"))
    assert main(["finetune", *tuned, *train]) == 0
    # What was trained is a folder of ours, of the same class.
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path / "tuned" / "model")) is type(theirs)


def test_without_a_tokenizer_it_takes_the_one_that_is_brought(tokens, tmp_path):
    theirs = save_theirs(tmp_path / "theirs", tokenizer=None)
    with pytest.raises(DataError, match="theirs holds no tokenizer") as caught:
        load_model(tmp_path / "theirs")
    assert "AutoTokenizer" in caught.value.fix
    assert_same(load_model(tmp_path / "theirs", tokenizer=TOKENIZER)[0], theirs)
    run = ("--init", str(tmp_path / "theirs"), "--data.tokens", str(tokens), "--data.length", "16")
    assert main(["pretrain", *run, "--train.steps", "1", "--train.device", "cpu", "--out", str(tmp_path / "run")]) == 0
    assert load_model(tmp_path / "run")[1].hash == TOKENIZER.hash


def test_rows_that_round_the_vocabulary_up_are_left_out(tmp_path):
    theirs = save_theirs(tmp_path, rows=320)
    model, _ = load_model(tmp_path)
    assert model.config.vocab_size == len(model.embedding.weight) == len(model.head.weight) == TOKENIZER.vocab_size
    assert_same(model, theirs)


@pytest.mark.parametrize(
    ("rows", "where", "said"),
    [
        (TOKENIZER.vocab_size - 1, "in it", "the model has 262 token ids, the tokenizer in it 263"),
        (TOKENIZER.vocab_size + SPARE_ROWS, "in it", "the model has 1,287 token ids, the tokenizer in it 263"),
        (TOKENIZER.vocab_size + 1, "given", "the model has 264 token ids, the tokenizer given 263"),
    ],
)
def test_a_tokenizer_of_another_vocabulary_is_refused(rows, where, said, tmp_path):
    save_theirs(tmp_path, rows=rows, tokenizer=None if where == "given" else TOKENIZER)
    with pytest.raises(DataError, match=said):
        load_model(tmp_path, tokenizer=TOKENIZER)


def test_pickled_weights_are_not_read(tmp_path):
    save_theirs(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"holds no model\.safetensors: other files of weights can hold code"):
        load_model(tmp_path)


def test_weights_keep_their_dtype_and_integers_are_refused(tmp_path):
    save_theirs(tmp_path).half().save_pretrained(tmp_path / "half")
    TOKENIZER.save(tmp_path / "half")
    assert load_model(tmp_path / "half")[0].embedding.weight.dtype == torch.float16
    weights = load_file(tmp_path / "model.safetensors")
    save_file({name: weight.to(torch.int8) for name, weight in weights.items()}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="must be of one floating-point dtype, they are int8"):
        load_model(tmp_path)


def test_a_folder_of_ours_that_lost_its_manifest_stays_broken(tmp_path):
    folder = save_tiny_model(tmp_path / "model")
    (folder / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"it has no manifest\.json"):
        load_model(folder)


def test_special_ids_that_no_row_has_are_none(tmp_path):
    """As transformers writes them by default: 50256 in GPT-2 of any size, and −1 for no padding in old Llamas."""
    save_theirs(tmp_path, "GPT2")
    assert json.loads((tmp_path / "config.json").read_text())["bos_token_id"] == 50256
    assert import_model(tmp_path).config.bos_id is None is import_config(tmp_path).eos_id
    save_theirs(tmp_path / "llama")
    values = json.loads((tmp_path / "llama" / "config.json").read_text())
    (tmp_path / "llama" / "config.json").write_text(json.dumps(values | {"pad_token_id": -1}))
    assert (import_config(tmp_path / "llama").pad_id, import_config(tmp_path / "llama").eos_id) == (None, 2)
