"""Deep mixtures of experts compute what their Hugging Face classes compute; what is left in fp32 is rounding.

Peer: transformers, the installed version; its name stands in the ids of the tests.
"""

from __future__ import annotations

import sys

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from seedbed.model.importing import import_model
from tests.random_models import randomise

EXPERTS = {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 24}
KINDS = {
    "Mixtral": {"num_local_experts": 8},
    "Qwen3Moe": {**EXPERTS, "norm_topk_prob": True, "head_dim": 8, "mlp_only_layers": [0]},
    "Qwen3Moe, weights as they are": {**EXPERTS, "norm_topk_prob": False, "head_dim": 8, "decoder_sparse_step": 2},
    "Dots1": {
        **{"n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 24, "n_shared_experts": 2},
        **{"first_k_dense_replace": 1, "head_dim": 8, "norm_topk_prob": True},
    },
}
LAYERS = 6


class Wide:
    """torch for their module, whose norms and routers ask for fp32 by name: they get fp64."""

    float32 = float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


def wide_angles(x, position_ids):
    """Their cosines and sines, rounded to fp32 once, at the end, as in our table; they round each step."""
    frequencies = 10_000.0 ** (-torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    angles = torch.cat([position_ids[..., None] * frequencies] * 2, dim=-1)
    return tuple(part.to(torch.float32).double() for part in (angles.cos(), angles.sin()))


@pytest.fixture(scope="module", params=KINDS, ids=[f"transformers {transformers.__version__}, {k}" for k in KINDS])
def pair(request, tmp_path_factory):
    """Ours and theirs, of the same random weights."""
    sizes = {"vocab_size": 263, "hidden_size": 32, "num_hidden_layers": LAYERS, "intermediate_size": 48}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    sizes |= {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}
    config = getattr(transformers, f"{request.param.partition(',')[0]}Config")(
        **sizes, **KINDS[request.param], bos_token_id=1, eos_token_id=2
    )
    theirs = AutoModelForCausalLM.from_config(config, experts_implementation="eager").eval()  # others know no fp64
    randomise(theirs)
    folder = tmp_path_factory.mktemp("peer")
    theirs.save_pretrained(folder)
    return import_model(folder).eval(), theirs


@torch.no_grad()
def test_logits_of_a_deep_mixture_are_the_same(pair, monkeypatch):
    """To 1e-10 in fp64, so that nothing but rounding is left in fp32: both are about as far from the truth there."""
    ours, theirs = pair
    tokens_BT = torch.randint(263, (3, 60), generator=torch.Generator().manual_seed(0))
    narrow, their_narrow = ours(tokens_BT), theirs(tokens_BT).logits
    wide = ours.double()(tokens_BT)
    monkeypatch.setattr(sys.modules[type(theirs).__module__], "torch", Wide())
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(theirs.model.rotary_emb, "forward", wide_angles)
    their_wide = theirs.double()(tokens_BT).logits
    assert wide.std() > 0.5 and their_wide.dtype is torch.float64
    torch.testing.assert_close(their_wide, wide, rtol=0, atol=1e-10)
    torch.testing.assert_close(their_narrow, narrow, rtol=0, atol=1e-5)
    assert (narrow - wide).abs().max() < 2 * (their_narrow - wide).abs().max()
