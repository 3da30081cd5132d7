"""`seedbed quantize`: a folder that is smaller, loads wherever a model does, and tells what that cost."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from seedbed.cli import main
from seedbed.configuration import from_arguments
from seedbed.errors import ConfigError, CorruptionError, DataError
from seedbed.inference.config import EngineConfig, SamplingConfig
from seedbed.inference.engine import Engine
from seedbed.model.config import InspectConfig
from seedbed.model.folder import load_model, save_model
from seedbed.model.inspect import inspect_model
from seedbed.model.linears.layers import storages, stored_layers
from seedbed.quantization.config import QuantizeConfig
from seedbed.quantization.quantize import quantize
from seedbed.runs import MANIFEST, read_manifest, seal
from seedbed.tokenizers import bytes as byte_tokenizer
from tests.random_models import random_model, saved
from tests.tiny import make_tokens

TOKENIZER = byte_tokenizer.build()
SIZES = {"width": 64, "heads": 4, "kv_heads": 2, "head_width": 16, "ff_width": 96}
FAMILIES = {
    "Qwen3": {},
    "tied": {"tied": True},
    "GPT-2": {"norm": "layer", "norm_bias": True, "activation": "gelu", "positions": "learned", "qk_norm": False}
    | {"attention_bias": True, "feedforward_bias": True, "kv_heads": 4},
    "ours": {"activation": "relu2", "value_embeddings": True, "embedding_skip": True, "short_convolution": 2},
    "experts": {"experts": 3, "experts_active": 2, "expert_width": 40, "experts_shared": 1},
}
SCHEMES = {
    **{"int8": (), "int8, weights alone": ("--activations=stored",)},
    **{"int4": ("--group=16",), "int4, short groups": ("--group=24",), "int4, tables of int8": ("--tables=int8",)},
    "nf4": (),
}
NEAR = {"int8": 0.08, "int4": 0.45, "nf4": 0.6}
"""Share of its size that the logits of a model may be off: its weights are noise, and a token that is routed to other
experts is far off."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model of each family."""
    place = tmp_path_factory.mktemp("models")
    for name, family in FAMILIES.items():
        saved(place / name, random_model(3, tokenizer=TOKENIZER, **(SIZES | family)), TOKENIZER)
    return place


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return make_tokens(tmp_path_factory.mktemp("tokens"))


def config_of(model, out, *options):
    return from_arguments(QuantizeConfig, [f"--model={model}", f"--out={out}", *options])


def quantized(folders, family, out, scheme="int8", *options):
    given = [f"--scheme={scheme.partition(',')[0]}", *SCHEMES.get(scheme, ()), *options]
    return quantize(config_of(folders / family, out, *given))


def some_tokens(model):
    return torch.randint(0, model.config.vocab_size, (2, 60), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_folder_of_any_family_loads_and_is_saved_again_to_the_same_bits(folders, family, scheme, tmp_path):
    result = quantized(folders, family, tmp_path / "out", scheme)
    model, tokenizer = load_model(tmp_path / "out")
    assert set(result["layers"]) == set(stored_layers(model))
    save_model(tmp_path / "again", model, tokenizer, inputs={}, card={})
    files = [read_manifest(tmp_path / name).files["model.safetensors"] for name in ("out", "again")]
    assert files[0] == files[1]
    again = load_model(tmp_path / "again")[0]
    assert torch.equal(again(some_tokens(model)), model(some_tokens(model)))
    plain = load_model(folders / family)[0]
    wanted = plain(some_tokens(model))
    assert 0 < (model(some_tokens(model)) - wanted).norm() < NEAR[scheme.partition(",")[0]] * wanted.norm()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("family", FAMILIES)
def test_it_answers_the_same_alone_and_in_company(folders, family, scheme, tmp_path):
    quantized(folders, family, tmp_path / "out", scheme)
    engine = Engine.load(tmp_path / "out", config=EngineConfig(exact=family != "experts"))
    prompts, sampling = [[5, 6, 7], [8] * 20, [9, 10]], SamplingConfig(max_tokens=20)
    together = engine.complete(prompts, sampling)
    assert [each.tokens for each in together] == [engine.complete([ids], sampling)[0].tokens for ids in prompts]


@pytest.mark.parametrize("scheme", ["fp16", "bf16"])
def test_half_precision_is_a_plain_folder_of_half_the_bytes(folders, scheme, tmp_path):
    result = quantized(folders, "ours", tmp_path / "out", scheme)
    model = load_model(tmp_path / "out")[0]
    plain = load_model(folders / "ours")[0].to(model.dtype)
    assert str(model.dtype) == {"fp16": "torch.float16", "bf16": "torch.bfloat16"}[scheme]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    assert 0.5 < result["share"] < 0.6 and result["layers"] == {} and not storages(model)


def test_what_is_excluded_stays_as_it_is(folders, tmp_path):
    result = quantized(folders, "Qwen3", tmp_path / "out", "int8", "--exclude=[head,blocks.0.attention.*]")
    model, plain = (load_model(path)[0] for path in (tmp_path / "out", folders / "Qwen3"))
    assert not [name for name in result["layers"] if name == "head" or name.startswith("blocks.0.attention")]
    assert len(result["layers"]) == 1 + 3 + 7
    assert torch.equal(model.head.weight, plain.head.weight)
    assert torch.equal(model.blocks[0].attention.key.weight, plain.blocks[0].attention.key.weight)
    engine = Engine.load(tmp_path / "out", config=EngineConfig(exact=True))
    assert len(engine.complete([[5, 6]], SamplingConfig(max_tokens=5))[0].tokens) <= 5


def test_a_pattern_that_fits_nothing_or_all_is_told(folders, tmp_path):
    with pytest.raises(ConfigError, match="exclude has 'heads', which no layer is called") as told:
        quantized(folders, "Qwen3", tmp_path / "out", "int8", "--exclude=[heads]")
    assert "blocks.*.feedforward.down, head" in told.value.fix
    with pytest.raises(ConfigError, match="leaves no layer"):
        quantized(folders, "Qwen3", tmp_path / "out", "int8", "--exclude=['*']")
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_cost(folders, tokens, tmp_path, capsys):
    given = ["--model", folders / "Qwen3", "--out", tmp_path / "out", "--text", tokens, "--text_tokens", "400"]
    assert main(["quantize", *map(str, given), "--json"]) == 0
    printed = capsys.readouterr().out.splitlines()
    result = json.loads(printed[-1])
    assert result == json.loads((tmp_path / "out" / "result.json").read_text())
    weights = (tmp_path / "out" / "model.safetensors").stat().st_size
    assert result["bytes"] == weights and result["share"] == weights / result["fp32_bytes"] < 0.4
    assert result["fp32_bytes"] == sum(4 * p.numel() for p in load_model(folders / "Qwen3")[0].parameters())
    found = result["perplexity"]
    assert found["tokens"] == 399 and found["after"] / found["before"] - 1 == found["change"] != 0
    for name, row in result["layers"].items():
        assert 0.003 < row["weights_error"] < 0.01 and row["outputs_error"] is None
        assert any(line.startswith(f"{name} ") and f"{row['bytes']:,}" in line for line in printed)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "perplexity" in card and "compressed-tensors" in card and "in int8" in card


def test_text_is_read_from_files_too(folders, tmp_path):
    (tmp_path / "text.txt").write_text("The seed of a small tree. " * 20)
    result = quantized(folders, "Qwen3", tmp_path / "out", "int8", f"--text={tmp_path / 'text.txt'}")
    assert result["perplexity"]["tokens"] == 26 * 20  # and <s>, which is not predicted
    (tmp_path / "text.txt").write_text("")
    with pytest.raises(DataError, match=r"text\.txt"):
        quantized(folders, "Qwen3", tmp_path / "other", "int8", f"--text={tmp_path / 'text.txt'}")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--scheme=bf16", "--exclude=[head]"), "exclude does nothing with scheme bf16"),
        (("--scheme=fp16", "--activations=stored"), "activations does nothing without scheme int8"),
        (("--group=32",), "group does nothing without scheme int4"),
        (("--tables=int8",), "tables does nothing without scheme int4"),
        (("--scheme=fp16", "--method=nearest"), "method does nothing with scheme fp16"),
        (("--scheme=nf4", "--method=nearest"), "method does nothing with scheme nf4"),
        (("--scheme=int4", "--method=gptq"), "method gptq needs sample text"),
        (("--scheme=int4", "--method=awq"), "method awq needs sample text"),
        (("--method=awq", "--calibration=x"), "method awq is for int4"),
        (("--scheme=int4", "--group=4"), "group must be between 8 and"),
        (("--text_tokens=5",), "text_tokens does nothing without text"),
        (("--calibration_tokens=5",), "calibration_tokens does nothing without calibration"),
        (("--scheme=fp16", "--calibration=x"), "calibration does nothing with scheme fp16"),
        (("--text=x.txt", "--calibration=x.txt"), "text is the calibration text"),
        (("--scheme=int3",), "scheme"),
    ],
)
def test_options_that_do_nothing_are_refused(folders, tmp_path, options, said, capsys):
    assert main(["quantize", f"--model={folders / 'Qwen3'}", f"--out={tmp_path / 'out'}", *options]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("scheme", [*SCHEMES, "fp16"])
def test_weights_that_are_no_numbers_are_refused(scheme, tmp_path):
    model = random_model(tokenizer=TOKENIZER)
    model.blocks[1].feedforward.up.weight.data[3, 4] = torch.nan
    saved(tmp_path / "broken", model, TOKENIZER)
    with pytest.raises(DataError, match=r"blocks\.1\.feedforward\.up\.weight holds what is no number"):
        quantized(tmp_path, "broken", tmp_path / "out", scheme)
    assert not (tmp_path / "out").exists()


def test_a_weight_that_half_precision_does_not_hold_is_refused(tmp_path):
    model = random_model(tokenizer=TOKENIZER)
    model.final_norm.weight.data[0] = 1e6
    saved(tmp_path / "model", model, TOKENIZER)
    with pytest.raises(DataError, match=r"final_norm\.weight holds what is no number"):
        quantized(tmp_path, "model", tmp_path / "out", "fp16")


# Calibration ---------------------------------------------------------------------------------------------------------


def logits(path):
    model = load_model(path)[0]
    return model(some_tokens(model))


@pytest.mark.parametrize("family", ["Qwen3", "tied"])
@torch.no_grad()
def test_awq_gives_a_model_that_is_as_near_as_by_rounding(folders, tokens, family, tmp_path):
    wanted, missed = logits(folders / family), {}
    for method in ("nearest", "awq"):
        options = [f"--calibration={tokens}", "--calibration_tokens=4000", "--group=32", f"--method={method}"]
        quantized(folders, family, tmp_path / method, "int4", *options)
        missed[method] = float((logits(tmp_path / method) - wanted).norm() / wanted.norm())
    assert missed["awq"] < 1.1 * missed["nearest"] < 0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_gptq_loses_less_of_the_outputs_than_rounding(folders, tokens, family, tmp_path):
    options = [f"--calibration={tokens}", "--calibration_tokens=4000", "--group=16"]
    losses = {
        method: quantized(folders, family, tmp_path / method, "int4", *options, f"--method={method}")["layers"]
        for method in ("nearest", "gptq")
    }
    multiplied = [name for name, row in losses["gptq"].items() if row["outputs_error"] is not None]
    assert len(multiplied) >= 8 and not any("embedding" in name for name in multiplied)
    for name in multiplied:
        assert losses["gptq"][name]["outputs_error"] < losses["nearest"][name]["outputs_error"]
        assert losses["gptq"][name]["weights_error"] > losses["nearest"][name]["weights_error"]


def test_with_sample_text_int4_is_calibrated_and_int8_is_not(folders, tokens, tmp_path):
    def layers(name, *options):
        return quantized(folders, "Qwen3", tmp_path / name, *options)["layers"]

    text = f"--calibration={tokens}"
    assert layers("a", "int4", text) == layers("b", "int4", text, "--method=gptq")
    assert layers("c", "int8", text) == layers("d", "int8", text, "--method=nearest")
    weights_alone = ("int8", text, "--activations=stored")
    calibrated, nearest = layers("e", *weights_alone, "--method=gptq"), layers("f", *weights_alone)
    assert calibrated["head"]["outputs_error"] < nearest["head"]["outputs_error"]


# Folders -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(folders, tmp_path):
    quantized(folders, "Qwen3", tmp_path / "out", "int8")
    return tmp_path / "out"


def test_it_learns_no_more(folder, tmp_path):
    with pytest.raises(DataError, match=r"is quantized \(int8\)"):
        load_model(folder, learns=True)
    with pytest.raises(DataError, match="is quantized"):
        quantize(config_of(folder, tmp_path / "more"))
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "response": "b"}\n{"prompt": "c", "response": "d"}\n')
    for command in (
        ["finetune", f"--model={folder}", f"--data={tmp_path / 'rows.jsonl'}", f"--out={tmp_path / 'run'}"],
    ):
        assert main(command) == 2 and not (tmp_path / "run").exists()


def test_it_is_not_rounded_twice(folder):
    with pytest.raises(ConfigError, match=r"is quantized already \(int8\)"):
        Engine.load(folder, weights="int8")


def test_another_precision_is_refused(folder):
    with pytest.raises(ConfigError, match="it computes in fp32"):
        load_model(folder, dtype="bfloat16")
    load_model(folder, dtype="float32")


def test_inspect_says_what_it_is(folder, capsys):
    result = inspect_model(InspectConfig(model=str(folder)))
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert result["stored"] == "int8" and result["stored_bytes"] == size < result["weight_bytes"] / 2
    told = capsys.readouterr().out
    assert "Its layers are in int8." in told and f"({size / 1e6:,.1f} as they are stored)" in told


def test_a_flipped_bit_or_a_cut_off_file_is_found(folder):
    for name in [*read_manifest(folder).files, MANIFEST]:
        whole = (folder / name).read_bytes()
        for broken in (whole[: len(whole) // 2], whole[:-3] + bytes([whole[-3] ^ 4]) + whole[-2:]):
            (folder / name).write_bytes(broken)
            with pytest.raises((CorruptionError, DataError), match=str(folder)):
                load_model(folder)
        (folder / name).write_bytes(whole)
    load_model(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda stored: stored.pop("head"), r"lm_head\.weight_scale is not one of this architecture"),
        (lambda stored: stored.update(head=3), r"stored\.head must have scheme"),
        (lambda stored: stored["head"].update(scheme="int3"), r"stored\.head\.scheme must be one of int8, int4, nf4"),
        (lambda stored: stored["head"].pop("scheme"), r"stored\.head must have scheme"),
        (lambda stored: stored["head"].update(group=8), r"stored\.head: group is for int4"),
        (lambda stored: stored["head"].update(scheme="int4", group=8), "activations int8 is for the scheme int8"),
        (
            lambda stored: stored["head"].update(scheme="int4", group=8, activations="stored"),
            "is missing",
        ),
        (
            lambda stored: stored.update(final_norm=stored["head"]),
            "stored has final_norm, the model has no such matrix",
        ),
        (
            lambda stored: stored.update({"blocks.0.attention.query_norm": stored["head"]}),
            "the model has no such matrix",
        ),
        (lambda stored: stored.update({"x" * 300: stored["head"]}), "stored has xxx"),
    ],
)
def test_a_description_that_the_weights_contradict_is_told(folder, change, said):
    values = json.loads((folder / "seedbed.json").read_text())
    change(values["stored"])
    (folder / "seedbed.json").write_text(json.dumps(values))
    seal(folder, "model")
    with pytest.raises((CorruptionError, DataError), match=said):
        load_model(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int32])
def test_a_part_of_another_dtype_is_told(folder, dtype):
    weights = load_file(folder / "model.safetensors")
    scale = weights["lm_head.weight_scale"]
    save_file(weights | {"lm_head.weight_scale": scale.to(dtype)}, folder / "model.safetensors")
    seal(folder, "model")
    with pytest.raises(DataError, match=r"lm_head\.weight_scale is .*, it must be float32"):
        load_model(folder)


def test_a_router_is_never_in_few_bits(folders, tmp_path):
    """A folder may say so; the model could not read it."""
    quantized(folders, "experts", tmp_path / "out", "int8")
    name, file = "blocks.0.feedforward.router", tmp_path / "out" / "model.safetensors"
    values = json.loads((tmp_path / "out" / "seedbed.json").read_text())
    values["stored"][name] = values["stored"]["embedding"]
    (tmp_path / "out" / "seedbed.json").write_text(json.dumps(values))
    weights = load_file(file)
    rows = weights[f"{name}.weight"]
    save_file(weights | {f"{name}.weight": rows.to(torch.int8), f"{name}.weight_scale": rows[:, :1].clone()}, file)
    seal(tmp_path / "out", "model")
    with pytest.raises(DataError, match=f"stored has {name}, the model has no such matrix"):
        load_model(tmp_path / "out")


def test_a_config_for_others_that_says_something_else_is_refused(folder):
    values = json.loads((folder / "config.json").read_text())
    values["quantization_config"]["format"] = "pack-quantized"
    (folder / "config.json").write_text(json.dumps(values))
    seal(folder, "model")
    with pytest.raises(DataError, match=r"config\.json: quantization_config must be"):
        load_model(folder)
