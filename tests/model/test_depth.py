"""Each rule of `model.depth` against its formula, and what is given against what follows."""

from __future__ import annotations

import math

import pytest

from seedbed.errors import ConfigError
from seedbed.model.accounting import multiplied_parameters
from seedbed.model.config import InspectConfig, ModelConfig
from seedbed.model.depth import Budget, derive_sizes, derive_training, table
from seedbed.model.inspect import inspect_model
from seedbed.optim.config import OptimizerConfig
from seedbed.optim.scaling import batch_tokens, batch_tokens_for, rate_factor, weight_decay


def model(depth: int, **given: object) -> ModelConfig:
    return ModelConfig(depth=depth, vocab_size=8192, **given).resolve()


def derived(depth: int, optimizer: OptimizerConfig | None = None, **budget: object) -> dict[str, float]:
    found = derive_training(model(depth), 512, optimizer or OptimizerConfig(), Budget(**budget))
    return {item.key: item.value for item in found}


class TestSizes:
    @pytest.mark.parametrize(("depth", "width", "heads"), [(1, 64, 1), (4, 256, 4), (12, 768, 12), (15, 960, 15)])
    def test_a_layer_has_64_of_width_in_heads_of_64(self, depth, width, heads):
        made = model(depth)
        assert (made.layers, made.width, made.heads, made.head_width) == (depth, width, heads, 64)

    @pytest.mark.parametrize(("depth", "width", "heads"), [(16, 1024, 8), (17, 1152, 9), (32, 2048, 16)])
    def test_from_16_layers_on_heads_are_of_128_and_width_is_whole_heads(self, depth, width, heads):
        made = model(depth)
        assert (made.layers, made.width, made.heads, made.head_width) == (depth, width, heads, 128)

    def test_experts_need_no_number_of_layers(self):
        assert ModelConfig(vocab_size=9, experts=4).resolve().layers == 4
        assert ModelConfig(vocab_size=9, experts=4, depth=2).resolve().layers == 2

    def test_what_is_given_wins(self):
        assert model(4, width=128).width == 128
        assert model(4, heads=2).head_width == 128
        assert model(4, kv_heads=2).kv_heads == 2

    def test_without_depth_sizes_are_those_of_old(self):
        made = ModelConfig(vocab_size=9).resolve()
        assert (made.layers, made.width, made.heads, made.head_width) == (4, 256, 4, 64)

    def test_a_resolved_model_is_the_same_whichever_way_it_was_asked_for(self):
        assert model(6) == ModelConfig(layers=6, width=384, vocab_size=8192).resolve()

    def test_other_layers_contradict_depth(self):
        with pytest.raises(ConfigError, match="depth is 4, but layers is 5"):
            ModelConfig(depth=4, layers=5)

    def test_heads_that_do_not_fill_the_width_contradict_depth(self):
        with pytest.raises(ConfigError, match=r"got 256 \(64 for each layer of depth 4\) and 3"):
            model(4, heads=3)

    def test_only_sizes_that_were_left_out_are_told(self):
        given = ModelConfig(depth=4, width=128, vocab_size=9)
        assert [item.key for item in derive_sizes(given, given.resolve())] == ["model.layers", "model.heads"]


class TestRules:
    def test_the_batch_is_a_power_of_the_tokens(self):
        assert batch_tokens(1e9) == pytest.approx(0.0306 * 2048 * 1e9**0.383)
        assert batch_tokens(2e9) / batch_tokens(1e9) == pytest.approx(2**0.383)

    @pytest.mark.parametrize("steps", [1, 300, 10_000])
    def test_the_batch_for_steps_is_right_for_the_tokens_that_they_then_take(self, steps):
        batch = batch_tokens_for(steps)
        assert batch_tokens(batch * steps) == pytest.approx(batch)

    def test_rates_go_with_the_root_of_the_batch_and_fall_with_the_tokens(self):
        assert rate_factor(8192, 2e6) == pytest.approx(1)
        assert rate_factor(4 * 8192, 2e6) == pytest.approx(2)
        assert rate_factor(8192, 2e7) == pytest.approx(10**-0.32)

    def test_the_anchor_leads_to_the_rate_that_nanochat_measured(self):
        # d12: 12 tokens for each of 12·12·768² + 32768·768 parameters, 2^19 tokens a step, Muon at 0.02
        tokens = 12 * (12 * 12 * 768**2 + 32768 * 768)
        assert 0.02 * rate_factor(2**19, tokens) == pytest.approx(0.02, rel=0.05)

    def test_decay_lets_weights_remember_their_share_of_the_run(self):
        decay = weight_decay(0.02, 1000, 20)
        assert 1 / (0.02 * decay) / 1000 == pytest.approx(1.084 * 20**-0.527)


class TestTraining:
    @pytest.mark.parametrize("depth", [1, 4, 12, 30])
    def test_a_run_takes_twenty_tokens_a_parameter(self, depth):
        made = derived(depth)
        tokens = made["train.steps"] * made["train.batch"] * 512
        assert tokens == pytest.approx(20 * multiplied_parameters(model(depth)), rel=0.01)

    @pytest.mark.parametrize("depth", [1, 4, 12, 30])
    def test_every_value_is_that_of_its_formula(self, depth):
        made, config = derived(depth), model(depth)
        n = multiplied_parameters(config)
        batch = 2 ** round(math.log2(0.0306 * 2048 * (20 * n) ** 0.383 / 512))
        steps = round(20 * n / (batch * 512))
        factor = math.sqrt(batch * 512 / 8192) * (steps * batch * 512 / 2e6) ** -0.32
        root = math.sqrt(256 / config.width)
        assert (made["train.batch"], made["train.steps"]) == (batch, steps)
        assert made["optimizer.matrix_rate"] == pytest.approx(0.02 * factor, rel=0.01)
        assert made["optimizer.embedding_rate"] == pytest.approx(0.05 * factor * root, rel=0.01)
        assert made["optimizer.head_rate"] == pytest.approx(0.004 * factor * root, rel=0.01)
        assert made["optimizer.vector_rate"] == pytest.approx(0.01 * factor, rel=0.01)
        decay = 1 / (made["optimizer.matrix_rate"] * steps * 1.084 * 20**-0.527)
        assert made["optimizer.weight_decay"] == pytest.approx(decay, rel=0.02)

    def test_what_is_given_wins_and_the_rest_follows_it(self):
        made = derived(4, OptimizerConfig(matrix_rate=0.1), batch=16, micro_batch=4, steps=100)
        assert set(made) == {
            f"optimizer.{name}" for name in ("embedding_rate", "head_rate", "vector_rate", "weight_decay")
        }
        assert made["optimizer.vector_rate"] == pytest.approx(0.01 * (100 * 8192 / 2e6) ** -0.32, rel=0.01)
        per_parameter = 100 * 8192 / multiplied_parameters(model(4))
        assert made["optimizer.weight_decay"] == pytest.approx(weight_decay(0.1, 100, per_parameter), rel=0.01)

    def test_a_horizon_is_another_number_of_tokens(self):
        made = derived(4, horizon=5.0)
        tokens = made["train.steps"] * made["train.batch"] * 512
        assert tokens == pytest.approx(5 * multiplied_parameters(model(4)), rel=0.01)

    def test_minutes_leave_batch_and_decay_as_they_are(self):
        made = derived(8, timed=True)
        assert "train.batch" not in made and "optimizer.weight_decay" not in made and "train.steps" not in made
        assert made["optimizer.matrix_rate"] == 0.02
        assert made["optimizer.head_rate"] == pytest.approx(0.004 * math.sqrt(256 / 512), rel=0.01)

    def test_one_rate_for_all_falls_with_the_width(self):
        narrow, wide = (derived(depth, OptimizerConfig(name="adamw"), timed=True) for depth in (4, 8))
        assert narrow["optimizer.rate"] == pytest.approx(2 * wide["optimizer.rate"])

    def test_gradients_that_are_taken_as_long_as_they_are_keep_their_rate(self):
        assert not any(key.endswith("rate") for key in derived(8, OptimizerConfig(name="sgd")))

    def test_a_large_batch_goes_through_in_parts(self):
        made = derived(12)
        assert made["train.micro_batch"] * 512 == 16_384 < made["train.batch"] * 512


class TestInspect:
    def test_it_shows_what_depth_makes_with_each_rule(self, capsys):
        result = inspect_model(InspectConfig(depth=4, vocab_size=8192))
        assert result["derived"] == derived(4) | {"model.layers": 4, "model.width": 256, "model.heads": 4}
        out = capsys.readouterr().out
        for item in derive_training(model(4), 512, OptimizerConfig(), Budget()):
            assert item.key in out and item.rule in out

    def test_a_file_with_a_depth_is_told_alike(self, tmp_path):
        (tmp_path / "deep.yaml").write_text("model: {depth: 3}\n")
        result = inspect_model(InspectConfig(model=str(tmp_path / "deep.yaml"), vocab_size=100))
        assert result["model"]["width"] == 192 and result["derived"]["model.layers"] == 3

    @pytest.mark.parametrize("given", [{}, {"model": "pretrain/wiki-small", "depth": 4}])
    def test_it_is_one_of_model_and_depth(self, given):
        with pytest.raises(ConfigError, match="give one of model and depth"):
            InspectConfig(**given)


def test_the_table_names_each_value_and_its_rule():
    lines = table(derive_training(model(4), 512, OptimizerConfig(), Budget())).splitlines()
    assert len(lines) == 1 + len(derived(4))
    assert lines[1].split()[:2] == ["train.batch", "128"]
