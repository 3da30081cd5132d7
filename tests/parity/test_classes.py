"""Each Hugging Face class computes what our architecture computes, from a folder of ours and from one of theirs.

Peer: transformers, the installed version; its name stands in the ids of the tests.
"""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from seedbed.errors import DataError
from seedbed.model.config import ModelConfig
from seedbed.model.folder import load_model
from seedbed.model.huggingface.activations import GATED_ACTIVATIONS, PLAIN_ACTIVATIONS
from seedbed.model.importing import import_model
from seedbed.model.transformer import Transformer
from seedbed.tokenizers import bytes as byte_tokenizer
from tests.random_configs import configs
from tests.random_models import random_model, randomise, saved

TOKENIZER = byte_tokenizer.build()
VERSION = f"transformers {transformers.__version__}"
PLAIN = {"norm_place": "pre", "logit_softcap": None, "embedding_skip": False, "value_embeddings": False, "experts": 0}
PLAIN |= {"short_convolution": None, "attention_output_bias": True}
IDS = {
    "vocab_size": TOKENIZER.vocab_size,
    **{name: getattr(TOKENIZER, name) for name in ("pad_id", "bos_id", "eos_id")},
}
RMS = PLAIN | IDS | {"norm": "rms", "positions": "rope", "context": 128}
MIXED = RMS | {
    "layers": 2,
    "width": 40,
    "feedforward_bias": False,
    "experts": 5,
    "experts_shared": 0,
    "router": "softmax",
    "balance_rate": 0.0,
}
EVERY_BLOCK = {"experts_active": 2, "router_normalised": True, "experts_every": 1, "experts_dense_first": 0}
SHARED = {"experts_shared": 2, "router": "sigmoid", "balance_rate": 0.1, "experts_every": 1}
DIVIDING = RMS | {"width": 36}
QWEN2_BIAS = {"attention_bias": True, "attention_output_bias": False}
ONE_EACH = PLAIN | IDS | {"norm": "layer", "norm_bias": True, "qk_norm": False, "feedforward_bias": True}
ONE_EACH |= {"heads": 5, "kv_heads": 5, "width": 40, "head_width": 8, "context": 128}

FAMILIES = {
    "Qwen3ForCausalLM": (RMS | {"qk_norm": True, "feedforward_bias": False}, GATED_ACTIVATIONS),
    "Qwen2ForCausalLM": (DIVIDING | QWEN2_BIAS | {"qk_norm": False, "feedforward_bias": False}, GATED_ACTIVATIONS),
    "LlamaForCausalLM": (DIVIDING | {"qk_norm": False}, GATED_ACTIVATIONS),
    "ArceeForCausalLM": (DIVIDING | {"qk_norm": False}, PLAIN_ACTIVATIONS),
    "MixtralForCausalLM": (MIXED | {"qk_norm": False, "attention_bias": False} | EVERY_BLOCK, GATED_ACTIVATIONS),
    "Qwen3MoeForCausalLM": (MIXED | {"qk_norm": True}, GATED_ACTIVATIONS),
    "Dots1ForCausalLM": (MIXED | {"qk_norm": True} | SHARED, GATED_ACTIVATIONS),
    "GPT2LMHeadModel": (ONE_EACH | {"positions": "learned", "attention_bias": True}, PLAIN_ACTIVATIONS),
    "GPTNeoXForCausalLM": (ONE_EACH | {"positions": "rope"}, PLAIN_ACTIVATIONS),
}


@pytest.fixture(params=FAMILIES, ids=[f"{VERSION}, {name}" for name in FAMILIES])
def family(request):
    return request.param


def some_tokens():
    return torch.randint(TOKENIZER.vocab_size, (2, 60), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def assert_same_logits(ours, theirs):
    wanted = ours(some_tokens())
    assert wanted.std() > 0.05  # else 1e-5 would be no promise
    torch.testing.assert_close(theirs(some_tokens()).logits, wanted, rtol=0, atol=1e-5)


def test_random_architectures_of_a_class_compute_the_same_there(family, tmp_path_factory):
    fixed, activations = FAMILIES[family]

    @settings(max_examples=8, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(configs(**fixed).filter(lambda config: config.activation in activations))
    def check(config):
        model = Transformer(config).eval()
        randomise(model)
        folder = saved(tmp_path_factory.mktemp("peer") / "model", model, TOKENIZER)
        theirs, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
        assert type(theirs).__name__ == family and not any(info.values())
        assert_same_logits(model, theirs.eval())
        # Our own folder loads to the same bits, and without what only we write it is one of theirs.
        loaded, imported = load_model(folder)[0], import_model(folder)
        for name, weight in model.named_parameters():
            assert torch.equal(loaded.get_parameter(name), weight) and torch.equal(imported.get_parameter(name), weight)
        assert_same_logits(imported, theirs)

    check()


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_a_reward_model_of_a_class_scores_the_same_there(family, tied, tmp_path):
    if family == "Dots1ForCausalLM":  # has no such class
        return
    fixed, activations = FAMILIES[family]
    sizes = {"layers": 2, "width": 40, "heads": 5, "kv_heads": 5, "head_width": 8, "ff_width": 48} | fixed
    sizes |= {"heads": 4, "kv_heads": 2, "head_width": 10} if sizes["width"] == 36 else {}
    sizes |= {"activation": next(iter(activations)), "tied": tied, "head": "score"}
    model = Transformer(ModelConfig(**sizes)).eval()
    randomise(model)
    folder = saved(tmp_path / "model", model, TOKENIZER)
    theirs, info = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert type(theirs).__name__ == family.replace("ForCausalLM", "").replace("LMHeadModel", "") + (
        "ForSequenceClassification"
    )
    assert not any(info.values())
    tokens_BT = torch.randint(7, TOKENIZER.vocab_size, (2, 30), generator=torch.Generator().manual_seed(0))
    tokens_BT[1, 20:] = TOKENIZER.pad_id  # theirs scores the last token that is no padding
    with torch.no_grad():
        values_BT = model.value(model.hidden(tokens_BT))
        wanted = values_BT[[0, 1], [29, 19]]
        found = theirs.eval()(tokens_BT, attention_mask=(tokens_BT != TOKENIZER.pad_id).long()).logits[:, 0]
    assert values_BT.std() > 0.05
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    imported = import_model(folder)
    assert imported.config.head == "score" and torch.equal(imported.score.weight, model.score.weight)


QWEN_EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "mlp_only_layers": [0]}
DOTS_EXPERTS = {"n_routed_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "n_shared_experts": 1}

THEIRS = {
    "Qwen3": {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8},
    "Llama": {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 1, "tie_word_embeddings": True},
    "Llama, yarn": {
        "hidden_size": 64,
        "num_attention_heads": 2,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 5000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "Llama, llama3": {
        "hidden_size": 64,
        "num_attention_heads": 2,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 5000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "Qwen2": {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "Arcee": {"hidden_size": 32, "num_attention_heads": 4},
    "Mixtral": {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 5},
    "Qwen3Moe": {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, **QWEN_EXPERTS},
    "Dots1": {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, **DOTS_EXPERTS},
    "GPT2": {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64, "initializer_range": 0.3},
    "GPTNeoX": {
        "hidden_size": 32,
        "num_attention_heads": 4,
        "use_parallel_residual": False,
        "hidden_act": "gelu_pytorch_tanh",
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 1.0},
    },
}


@pytest.mark.parametrize("kind", THEIRS, ids=[f"{VERSION}, {kind}" for kind in THEIRS])
def test_a_folder_that_transformers_saved_is_imported(kind, tmp_path):
    sizes = {"vocab_size": TOKENIZER.vocab_size, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2}
    if kind != "GPT2":
        sizes |= {"num_hidden_layers": 2, "intermediate_size": 48, "max_position_embeddings": 128}
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind.partition(',')[0]}Config")(**sizes | THEIRS[kind])
    theirs = AutoModelForCausalLM.from_config(config).eval()
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    assert_same_logits(import_model(tmp_path), theirs)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": ["MambaForCausalLM"]}, r"architectures is \['MambaForCausalLM'\], seedbed knows Qwen3"),
        ({"use_sliding_window": True}, "use_sliding_window is True, seedbed has only False"),
        ({"hidden_act": "gelu"}, "the activation is gelu, seedbed has silu"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 8.0}}, "its rotary positions are longrope"),
        (
            {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 2.0}},
            "low_freq_factor of its rotary positions is 2.0, seedbed has only 1",
        ),
        ({"hidden_size": None}, "model.width must be a whole number, got null"),
        ({"num_hidden_layers": "two"}, "model.layers must be a whole number"),
        ({"num_attention_heads": 0, "head_dim": None}, "makes no sense"),
        ({"num_hidden_layers": 3}, r"model\.layers\.2\.input_layernorm\.weight is missing"),
    ],
)
def test_an_architecture_that_we_do_not_have_is_refused(changes, said, tmp_path):
    folder = saved(tmp_path / "model", random_model(tokenizer=TOKENIZER), TOKENIZER)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | changes))
    with pytest.raises(DataError, match=said):
        import_model(folder)


@pytest.mark.parametrize(
    "windows",
    [
        {"layer_types": ["sliding_attention"] * 2},
        {"layer_types": None, "sliding_window": 32, "max_window_layers": 1},
        {"layer_types": ["full_attention", "sliding_attention"]},
    ],
)
def test_windows_of_a_mixture_are_refused(windows, tmp_path):
    model = random_model(tokenizer=TOKENIZER, experts=3, experts_shared=1, router="sigmoid", balance_rate=0.1)
    folder = saved(tmp_path / "model", model, TOKENIZER)
    values = json.loads((folder / "config.json").read_text())
    assert values["architectures"] == ["Dots1ForCausalLM"]
    (folder / "config.json").write_text(json.dumps(values | windows))
    with pytest.raises(DataError, match="its layers have sliding windows"):
        import_model(folder)


def test_an_architecture_that_no_class_has_is_loaded_by_us_alone(tmp_path):
    model = random_model(tokenizer=TOKENIZER, norm_place="sandwich", value_embeddings=True)
    folder = saved(tmp_path / "model", model, TOKENIZER)
    assert not (folder / "config.json").exists()
    loaded = load_model(folder)[0]
    assert all(torch.equal(loaded.get_parameter(name), weight) for name, weight in model.named_parameters())
    with pytest.raises((ValueError, OSError)):
        AutoModelForCausalLM.from_pretrained(folder)
