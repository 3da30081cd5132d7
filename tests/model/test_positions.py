"""Every way of telling positions against its formula.

Shape suffixes: B batch, T positions, D model width.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seedbed.errors import ConfigError
from seedbed.model.config import ModelConfig
from seedbed.model.positions import SinusoidalPositions, build_positions
from seedbed.model.rope_scaling import rotary_frequencies, yarn_temperature
from tests.random_models import random_model

FREQUENCIES = [10_000.0 ** (-2 * i / 16) for i in range(8)]


@given(st.floats(1, 32))
def test_linear_scaling_divides_every_frequency(factor):
    wanted = torch.tensor([frequency / factor for frequency in FREQUENCIES], dtype=torch.float64)
    torch.testing.assert_close(rotary_frequencies(16, 10_000.0, "linear", factor=factor), wanted)


@given(st.floats(1, 32))
def test_ntk_scaling_keeps_the_fastest_and_divides_the_slowest_by_the_factor(factor):
    got = rotary_frequencies(16, 10_000.0, "ntk", factor=factor)
    assert got[0] == 1
    assert got[-1].item() == pytest.approx(FREQUENCIES[-1] / factor, rel=1e-12)
    ratios = got[1:] / got[:-1]
    torch.testing.assert_close(ratios, ratios[:1].expand(7), rtol=1e-12, atol=0)


def test_yarn_keeps_fast_frequencies_and_divides_slow_ones():
    plain = rotary_frequencies(128, 10_000.0)
    got = rotary_frequencies(128, 10_000.0, "yarn", factor=16, original_context=4096)
    turns = 4096 * plain / (2 * math.pi)
    kept, divided = turns > 40, turns < 0.8  # the ramp ends at whole pairs
    assert kept.any() and divided.any()
    assert torch.equal(got[kept], plain[kept])
    torch.testing.assert_close(got[divided], plain[divided] / 16, rtol=1e-15, atol=0)
    between = ~kept & ~divided
    assert (got[between] <= plain[between]).all() and (got[between] >= plain[between] / 16).all()


def test_yarn_sharpens_attention_by_the_square_of_its_temperature():
    sizes = {"vocab_size": 5, "width": 32, "heads": 2, "context": 4096}
    rotary = build_positions(ModelConfig(**sizes, rope_scaling="yarn", rope_factor=8).resolve())
    cosine, sine = rotary.angles(3)
    lengths = (cosine.square() + sine.square()).sqrt()
    torch.testing.assert_close(lengths, torch.full((3, 16), 0.1 * math.log(8) + 1))
    assert yarn_temperature(1) == 1


def test_the_original_context_left_out_is_the_context_before_it_was_stretched():
    config = ModelConfig(vocab_size=5, context=4096, rope_scaling="yarn", rope_factor=8)
    assert config.resolve().rope_original_context == 512
    assert ModelConfig(vocab_size=5).resolve().rope_original_context is None


@torch.no_grad()
def test_a_factor_of_one_changes_nothing():
    tokens = torch.arange(12)[None]
    plain = random_model(context=512)(tokens)
    for scaling in ("linear", "ntk", "yarn", "llama3"):
        torch.testing.assert_close(random_model(context=512, rope_scaling=scaling)(tokens), plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("width", [8, 7])
def test_sinusoids_are_those_of_the_formula(width):
    x = SinusoidalPositions(width, 0.5).place(torch.zeros(1, 30, width), 30)[0]
    for position in range(30):
        for i in range(width):
            angle = position / 10_000 ** (2 * (i // 2) / width)
            assert x[position, i].item() == pytest.approx(0.5 * (math.cos if i % 2 else math.sin)(angle), abs=1e-6)


@pytest.mark.parametrize("kind", ["learned", "sinusoidal"])
@torch.no_grad()
def test_given_positions_take_the_vectors_of_those_positions(kind):
    positions = random_model(positions=kind).positions
    x_BTD = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    positions_BT = torch.tensor([[0, 1, 0, 1, 2], [7, 3, 9, 9, 4]])
    vectors = positions.place(torch.zeros(1, 10, 32), 10)[0]
    torch.testing.assert_close(positions.place(x_BTD, 10, positions_BT), x_BTD + vectors[positions_BT])


@pytest.mark.parametrize("kind", ["rope", "learned", "sinusoidal"])
@torch.no_grad()
def test_packed_documents_equal_documents_alone(kind):
    model = random_model(positions=kind).double()
    tokens = torch.tensor([[3, 14, 15, 9, 2, 6, 5]])
    segments, positions = torch.tensor([[0, 0, 0, 0, 1, 1, 1]]), torch.tensor([[0, 1, 2, 3, 0, 1, 2]])
    together = model(tokens, segments_BT=segments, positions_BT=positions)[0]
    alone = torch.cat([model(tokens[:, :4])[0], model(tokens[:, 4:])[0]])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


@torch.no_grad()
def test_without_positions_the_order_of_what_came_before_does_not_matter_to_one_block():
    one, other = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[3, 1, 2, 4]])
    for kind, same in (("none", True), ("rope", False), ("learned", False), ("sinusoidal", False)):
        model = random_model(positions=kind, layers=1).double()
        difference = (model(one)[0, -1] - model(other)[0, -1]).abs().max()
        assert (difference < 1e-12) == same, kind


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"positions": "none", "rope_scaling": "yarn"}, "rope_scaling is yarn, but positions is none"),
        ({"rope_factor": 2.0}, "rope_factor and rope_original_context need rope_scaling"),
        ({"rope_scaling": "yarn", "rope_base": 1.0}, "rope_base must be above 1"),
        ({"rope_scaling": "ntk", "heads": 4, "head_width": 2}, "head_width must be above 2"),
        ({"rope_scaling": "yarn", "rope_factor": 0.5}, "rope_factor must be between 1 and 1000000, got 0.5"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values, problem):
    with pytest.raises(ConfigError, match=problem):
        ModelConfig(vocab_size=5, **values).resolve()


def test_heads_of_odd_width_serve_where_nothing_is_turned():
    assert random_model(positions="learned", head_width=7)(torch.arange(5)[None]).shape == (1, 5, 50)
