"""A model folder, untouched, is a Hugging Face folder: same logits, ids, chats and greedy text there.

Peer: transformers, the installed version; its name stands in the ids of the tests.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3ForCausalLM

from seedbed.inference.config import SamplingConfig
from seedbed.inference.engine import Engine
from seedbed.tokenizers import byte_pair
from seedbed.tokenizers import bytes as byte_tokenizer
from seedbed.tokenizers.chat import encode_prompt, render
from tests.random_models import random_model, saved

TEXTS = [
    "The quick brown fox, 1234 times; it's näh — 木🌱",
    "",
    " \n\n  two spaces\tand a tab ",
    "def f(x):\n    return x",
    "\x00\x7f é e\u0301",
]
CHAT = [
    {"role": "system", "content": "Answer briefly."},
    {"role": "user", "content": "What is 3 + 45? 木"},
    {"role": "assistant", "content": "48"},
    {"role": "user", "content": "And <b>then</b>?"},
]


OWN_SOURCE = Path(__file__).read_text(encoding="utf-8").splitlines(keepends=True)
TOKENIZERS = {"bytes": byte_tokenizer.build, "byte_pair": lambda: byte_pair.train(OWN_SOURCE, 400)}
MODELS = {"grouped, own head": {}, "grouped, tied": {"tied": True}, "each its own": {"kv_heads": 4, "head_width": 16}}
CASES = [(kind, shape) for kind in TOKENIZERS for shape in MODELS]


@pytest.fixture(
    scope="module", params=CASES, ids=[f"transformers {transformers.__version__}, {k}, {s}" for k, s in CASES]
)
def pair(request, tmp_path_factory):
    """Our engine, and theirs, from one folder."""
    kind, shape = request.param
    tokenizer = TOKENIZERS[kind]()
    model = random_model(5, tokenizer=tokenizer, rope_base=1234.0, context=128, **MODELS[shape])
    folder = saved(tmp_path_factory.mktemp("peer") / "model", model, tokenizer)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert isinstance(theirs, Qwen3ForCausalLM)
    return Engine(model, tokenizer), theirs.eval(), AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
def test_logits_are_the_same(pair):
    engine, theirs, _ = pair
    vocabulary = engine.tokenizer.vocab_size
    tokens_BT = torch.randint(vocabulary, (3, 100), generator=torch.Generator().manual_seed(0))
    ours = engine.model(tokens_BT)
    assert ours.std() > 0.5  # else 1e-5 would be no promise
    torch.testing.assert_close(theirs(tokens_BT).logits, ours, rtol=0, atol=1e-5)


def test_no_weight_is_missing_or_left_over(pair, tmp_path):
    engine, _, _ = pair
    folder = saved(tmp_path / "model", engine.model, engine.tokenizer)
    _, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_the_same(pair, text):
    engine, _, tokenizer = pair
    assert tokenizer(text)["input_ids"] == engine.encode(text)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_decode_to_the_same_text(pair, text):
    engine, _, tokenizer = pair
    ids = engine.encode(text)
    assert tokenizer.decode(ids, skip_special_tokens=True) == engine.tokenizer.decode(ids) == text


def test_chats_are_rendered_the_same(pair):
    engine, _, tokenizer = pair
    theirs = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert theirs == render(engine.tokenizer, CHAT, add_generation_prompt=True)


def test_chats_have_the_same_ids(pair):
    engine, _, tokenizer = pair
    theirs = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert theirs == encode_prompt(engine.tokenizer, CHAT)


@pytest.mark.parametrize("prompt", ["The seed", "12 木", "<"])
def test_greedy_text_is_the_same_for_40_tokens(pair, prompt):
    engine, theirs, tokenizer = pair
    inputs = tokenizer(prompt, return_tensors="pt")
    # Ends are switched off on both sides, so that all 40 tokens are compared.
    made = theirs.generate(**inputs, max_new_tokens=40, do_sample=False, eos_token_id=-1)[
        0, inputs["input_ids"].shape[1] :
    ]
    tokenizer_without_end = engine.tokenizer.with_template("none is needed")
    tokenizer_without_end.end_ids = ()
    endless = Engine(engine.model, tokenizer_without_end)
    ours = endless.complete([engine.encode(prompt)], SamplingConfig(max_tokens=40, temperature=0))[0]
    assert len(ours.tokens) == 40
    assert list(ours.tokens) == made.tolist()
    assert ours.text == tokenizer.decode(made, skip_special_tokens=True)


def test_their_generation_ends_where_ours_ends(pair):
    engine, theirs, _ = pair
    assert theirs.generation_config.eos_token_id == list(engine.tokenizer.end_ids)
    assert theirs.generation_config.pad_token_id == engine.tokenizer.pad_id
    assert theirs.generation_config.bos_token_id == engine.tokenizer.bos_id


def test_a_model_without_special_tokens_generates_there_too(tmp_path):
    tokenizer = byte_tokenizer.build(specials=False)
    model = random_model(5, tokenizer=tokenizer)
    folder = saved(tmp_path / "model", model, tokenizer)
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    inputs = AutoTokenizer.from_pretrained(folder)("The", return_tensors="pt")
    made = theirs.generate(**inputs, max_new_tokens=20, do_sample=False)[0, 3:]
    ours = Engine(model, tokenizer).complete([tokenizer.encode("The")], SamplingConfig(max_tokens=20, temperature=0))
    assert list(ours[0].tokens) == made.tolist()
