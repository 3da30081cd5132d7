"""Architectures drawn at random from every choice of the dense family, small enough to build in milliseconds."""

from __future__ import annotations

from hypothesis import strategies as st

from seedbed.model.config import ModelConfig


@st.composite
def configs(draw, **fixed) -> ModelConfig:
    """Resolved; `fixed` are the values that are not drawn."""
    positions = fixed.get("positions") or draw(st.sampled_from(["rope", "alibi", "learned", "sinusoidal", "none"]))
    norm = fixed.get("norm") or draw(st.sampled_from(["rms", "layer"]))
    kv_heads = draw(st.sampled_from([1, 2, 3]))
    bias = fixed.get("attention_bias", draw(st.booleans()))
    drawn = {
        "vocab_size": draw(st.integers(5, 60)),
        "layers": draw(st.integers(1, 5)),
        "width": draw(st.sampled_from([12, 30, 40])),
        "heads": kv_heads * draw(st.sampled_from([1, 2])),
        "kv_heads": kv_heads,
        "head_width": draw(st.sampled_from([4, 6, 10])),
        "ff_width": draw(st.none() | st.integers(1, 50)),
        "context": draw(st.integers(16, 40)),
        "positions": positions,
        "norm": norm,
        "norm_bias": norm == "layer" and draw(st.booleans()),
        "norm_place": draw(st.sampled_from(["pre", "post", "sandwich"])),
        "qk_norm": draw(st.booleans()),
        "activation": draw(st.sampled_from(["swiglu", "geglu", "reglu", "gelu", "relu", "relu2", "silu"])),
        "attention_bias": bias,
        "attention_output_bias": not bias or draw(st.booleans()),
        "feedforward_bias": draw(st.booleans()),
        "dropout": draw(st.sampled_from([0.0, 0.2])),
        "logit_softcap": draw(st.sampled_from([None, 3.0])),
        "embedding_skip": draw(st.booleans()),
        "value_embeddings": draw(st.booleans()),
        "short_convolution": draw(st.sampled_from([None, 2, 4])),
        "tied": draw(st.booleans()),
    }
    if positions == "rope":
        scaling = draw(st.sampled_from(["none", "linear", "ntk", "yarn"]))
        drawn |= {"rope_scaling": scaling, "rope_factor": 1.0 if scaling == "none" else draw(st.floats(1, 8))}
    fits = not (drawn | fixed)["feedforward_bias"]
    if fixed.get("experts", fits and draw(st.booleans())):
        drawn |= draw(experts((drawn | fixed)["layers"]))
    return ModelConfig(**(drawn | fixed)).resolve()


@st.composite
def experts(draw, layers: int) -> dict[str, object]:
    """The fields about experts of a mixture."""
    count = draw(st.integers(2, 5))
    active = draw(st.integers(1, min(3, count)))
    every = draw(st.integers(1, min(3, layers)))
    return {
        "experts": count,
        "experts_active": active,
        "experts_shared": draw(st.integers(0, 2)),
        "expert_width": 4 * draw(st.integers(1, 5)),  # transformers wants multiples of 16 bytes
        "experts_every": every,
        "experts_dense_first": draw(st.integers(0, layers // every * every - 1)),
        "router": draw(st.sampled_from(["softmax", "sigmoid"])),
        "router_normalised": active > 1 and draw(st.booleans()),
        "balance_rate": draw(st.sampled_from([0.0, 0.1])),
    }
