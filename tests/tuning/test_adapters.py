"""An adapter learns while the base rests; its run is small, goes on in the same bits, and opens as any model does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import qlora_memory
from safetensors.torch import load_file, save_file

import seedbed.tuning.finetune as room
from seedbed.configuration import from_arguments
from seedbed.data.batches.packing import PackedSource
from seedbed.errors import ConfigError, DataError, SeedbedError
from seedbed.evaluation.config import EvaluateConfig
from seedbed.evaluation.evaluate import evaluate
from seedbed.inference.config import EngineConfig, GenerateConfig
from seedbed.inference.engine import Engine
from seedbed.inference.opening import open_engine
from seedbed.model.adapters.adapter import merge, unmerge
from seedbed.model.adapters.learning import LearningLayer
from seedbed.model.folder import load_model, save_model
from seedbed.model.linears.layers import made_whole, storages
from seedbed.optim.config import OptimizerConfig
from seedbed.optim.groups import build_optimizers
from seedbed.quantization.config import QuantizeConfig
from seedbed.quantization.quantize import quantize
from seedbed.runs import read_manifest
from seedbed.training.objective import NextToken
from seedbed.training.parallel.launch import launch
from seedbed.tuning.config import FinetuneConfig, FuseConfig, TuningConfig
from seedbed.tuning.equipment import build_adapter, equipped, load_base
from seedbed.tuning.finetune import finetune
from seedbed.tuning.fuse import fuse
from tests.tiny import make_tokens, records, save_tiny_model
from tests.tuning.test_finetune import FACTS, FAST, answer, config, facts

TOKENS_BT = torch.arange(7, 71).view(2, 32)


def adapter_config(base: Path, tmp_path: Path, method: str, *arguments: str, out: str = "run") -> FinetuneConfig:
    data = tmp_path / "d.jsonl"
    if not data.exists():
        facts(data)
    settings = (f"--validation={data}", "--length=64", f"--method={method}", "--optimizer.adapter_rate=0.02")
    return config(base, data, tmp_path / out, *settings, *arguments)


def weights(run: Path) -> bytes:
    return (run / "adapter" / "adapter_model.safetensors").read_bytes()


ALL = "--lora.targets=['*']"
LEARNS = {"lora": (ALL,), "dora": (ALL,), "qlora": (ALL, "--lora.rank=16")}
PROMPTS = ("prompt", "prefix", "p_tuning")
MERGED = (*LEARNS, "ia3")
METHODS = (*MERGED, "adapter", *PROMPTS)


@pytest.fixture(scope="session")
def speaker(base, tmp_path_factory) -> Path:
    """A model that answers, each question with the answer of the one before it in FACTS."""
    place = tmp_path_factory.mktemp("speaker")
    questions = list(FACTS)
    data = facts(place / "d.jsonl", {q: FACTS[questions[n - 1]] for n, q in enumerate(questions)})
    given = (f"--validation={data}", "--train.steps=100", "--train.validate_every=100", "--length=64")
    finetune(config(base, data, place / "run", *given, *FAST))
    return place / "run" / "model"


@pytest.mark.parametrize("method", LEARNS)
def test_a_base_that_rests_learns_other_answers(method, speaker, tmp_path):
    before = (speaker / "model.safetensors").read_bytes()
    given = ("--train.steps=100", "--train.validate_every=100", "--train.batch=4")
    result = finetune(adapter_config(speaker, tmp_path, method, *LEARNS[method], *given))
    assert result["val_loss"] < 0.1
    bare, engine = Engine.load(speaker), Engine.load(tmp_path / "run")
    assert {prompt: answer(engine, prompt) for prompt in FACTS} == FACTS
    assert all(answer(bare, prompt) != FACTS[prompt] for prompt in FACTS)
    assert (speaker / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("method", [method for method in METHODS if method not in PROMPTS])
def test_an_adapter_begins_as_nothing(method, base, tmp_path, monkeypatch):
    stages = []
    monkeypatch.setattr(room, "run_stage", lambda stage, config: stages.append(stage) or {})
    finetune(adapter_config(base, tmp_path, method, "--train.steps=1"))
    model = stages[0].model()
    with torch.inference_mode(), model.adapter.off(model):
        bare = model(TOKENS_BT)
    torch.testing.assert_close(model(TOKENS_BT), bare, rtol=0, atol=1e-6)
    assert all(
        torch.equal(one, other) for one, other in zip(model.parameters(), stages[0].model().parameters(), strict=True)
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(method, base, tmp_path):
    given = (
        "--train.steps=6",
        "--train.checkpoint.steps=2",
        "--train.validate_every=2",
        *(("--lora.dropout=0.1",) if method in LEARNS else ()),
    )
    for name in ("whole", "broken"):
        finetune(adapter_config(base, tmp_path, method, *given, out=name))
    (tmp_path / "broken" / "checkpoints" / "step_00000006" / "manifest.json").unlink()
    assert finetune(adapter_config(base, tmp_path, method, *given, out="broken"))["resumed_at"] == 4
    assert weights(tmp_path / "whole") == weights(tmp_path / "broken")
    assert records(tmp_path / "whole") == records(tmp_path / "broken")


def test_the_network_of_p_tuning_may_read_what_stands_beside_a_token(base, tmp_path):
    """Its state is in the checkpoint; the folder holds what it made alone."""
    given = ("--train.steps=6", "--train.checkpoint.steps=2", "--prompts.encoder=lstm", "--prompts.hidden=16")
    for name in ("whole", "broken"):
        result = finetune(adapter_config(base, tmp_path, "p_tuning", *given, out=name))
    (tmp_path / "broken" / "checkpoints" / "step_00000006" / "manifest.json").unlink()
    assert finetune(adapter_config(base, tmp_path, "p_tuning", *given, out="broken"))["resumed_at"] == 4
    assert weights(tmp_path / "whole") == weights(tmp_path / "broken")
    losses = [record["loss"] for record in records(tmp_path / "whole") if "loss" in record]
    assert losses[-1] < losses[0] and result["finished"]
    with pytest.raises(ConfigError, match=r"prompts\.encoder .*it is for p_tuning"):
        finetune(adapter_config(base, tmp_path, "prefix", *given, out="other"))


def test_a_checkpoint_holds_the_adapter_and_not_the_base(base, tmp_path):
    given = ("--train.steps=2", "--train.select=average")
    finetune(adapter_config(base, tmp_path, "lora", *given))
    held = (tmp_path / "run" / "checkpoints" / "step_00000002" / "model.safetensors").stat().st_size
    adapted = 2 * 2 * 8 * (32 + 32) * 4  # two layers, q and v, rank 8: bytes of both matrices, about
    assert held < 4 * adapted + 8000 < (base / "model.safetensors").stat().st_size


def test_an_unfinished_run_says_that_it_is_no_model(base, tmp_path):
    finetune(adapter_config(base, tmp_path, "lora", "--train.steps=2"))
    shutil.rmtree(tmp_path / "run" / "adapter")
    with pytest.raises(DataError, match="holds an adapter that is not trained to its end"):
        load_model(tmp_path / "run")


@pytest.mark.parametrize("parallel", ["ddp", "zero1", "fsdp"])
def test_processes_together_train_the_adapter_that_one_trains(parallel, base, tmp_path):
    given = ("--train.steps=3", "--lora.up_rate=4")
    finetune(adapter_config(base, tmp_path, "lora", *given, out="alone"))
    launch(
        finetune, adapter_config(base, tmp_path, "lora", *given, "--train.devices=2", f"--train.parallel={parallel}")
    )
    alone, together = (load_model(tmp_path / name)[0](TOKENS_BT) for name in ("alone", "run"))
    assert (alone - load_model(base)[0](TOKENS_BT)).abs().max() > 0.01
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_recomputing_changes_no_bit(base, tmp_path):
    for name, given in (("plain", ()), ("again", ("--train.recompute=full",))):
        finetune(adapter_config(base, tmp_path, "lora", "--train.steps=3", "--lora.dropout=0.2", *given, out=name))
    assert weights(tmp_path / "plain") == weights(tmp_path / "again")


def test_observers_see_a_run_of_an_adapter_and_change_nothing(base, tmp_path):
    watched = ("--statistics.every=2", "--samples.every=2", "--samples.max_tokens=4")
    for name, given in (("plain", ()), ("watched", watched)):
        finetune(adapter_config(base, tmp_path, "lora", "--train.steps=4", *given, out=name))
    assert weights(tmp_path / "plain") == weights(tmp_path / "watched")
    assert records(tmp_path / "watched", "samples.jsonl") and records(tmp_path / "watched", "statistics.jsonl")


def test_routers_of_a_base_with_experts_rest_too(tmp_path):
    experts = {"experts": 4, "experts_active": 2, "expert_width": 16, "balance_rate": 0.1, "balance_loss": 0.01}
    base = save_tiny_model(tmp_path / "base", context=96, **experts)
    settings = adapter_config(base, tmp_path, "lora", "--train.steps=4")
    model = equipped(load_base(settings)[0], settings)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters() if not weight.requires_grad}
    assert any("router" in name for name in before)
    finetune(settings)
    whole, plain = load_model(tmp_path / "run")[0], load_model(base)[0]
    moved = {
        name
        for (name, one), other in zip(whole.named_parameters(), plain.parameters(), strict=True)
        if not torch.equal(one, other)
    }
    assert moved == {f"blocks.0.attention.{layer}.weight" for layer in ("query", "value")}


# Opened --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=METHODS)
def trained(request, base, tmp_path_factory) -> Path:
    """A run."""
    place = tmp_path_factory.mktemp(request.param)
    finetune(adapter_config(base, place, request.param, "--train.steps=20", "--optimizer.adapter_rate=0.05"))
    return place / "run"


def test_the_run_opens_as_its_base_with_the_adapter_in_it(trained, base):
    run = trained
    method = read_manifest(run).config["method"]
    with_adapter = open_engine(from_arguments(GenerateConfig, [f"--model={base}", f"--adapter={run}", "--prompt=a"]))
    engine, name = with_adapter
    assert (name is None) == (method not in ("lora", "qlora"))
    told = engine.generate("color?", temperature=0, max_tokens=12, adapter=name)
    if method != "qlora":  # --model says the base itself, not one of fewer bits
        assert told == Engine.load(run).generate("color?", temperature=0, max_tokens=12)
    assert told != Engine.load(base).generate("color?", temperature=0, max_tokens=12)


def test_it_is_evaluated_as_any_model(trained, tmp_path):
    (tmp_path / "skills.jsonl").write_text(
        "".join(json.dumps({"skill": "facts", "prompt": p, "answer": a}) + "\n" for p, a in FACTS.items())
    )
    arguments = [f"--model={trained}", f"--data_dir={tmp_path}", f"--out={tmp_path / 'report'}", "--tasks=[skills]"]
    evaluate(from_arguments(EvaluateConfig, [*arguments, "--device=cpu"]))
    assert read_manifest(tmp_path / "report").inputs["model"] == read_manifest(trained / "adapter").hash


def test_fused_with_its_base_it_is_a_plain_model_that_computes_the_same(trained, tmp_path):
    if read_manifest(trained).config["method"] not in MERGED:
        with pytest.raises(ConfigError, match="is no part of a model: it stays a folder"):
            fuse(FuseConfig(adapter=trained, out=tmp_path / "model"))
        return
    fuse(FuseConfig(adapter=trained, out=tmp_path / "model"))
    fused, whole = load_model(tmp_path / "model")[0], load_model(trained)[0]
    torch.testing.assert_close(fused(TOKENS_BT), whole(TOKENS_BT), rtol=0, atol=1e-5)
    inputs = read_manifest(tmp_path / "model").inputs
    assert inputs["adapter"] == read_manifest(trained / "adapter").hash


def test_fused_with_a_base_in_bf16_it_is_in_bf16_rounded_once(base, tmp_path):
    model, tokenizer = load_model(base, dtype="bfloat16")
    save_model(tmp_path / "half", model, tokenizer, inputs={}, card={})
    finetune(adapter_config(tmp_path / "half", tmp_path, "lora", "--train.steps=3", ALL))
    fuse(FuseConfig(adapter=tmp_path / "run", out=tmp_path / "fused"))
    fused, exact = load_model(tmp_path / "fused")[0], load_model(tmp_path / "run", dtype="float32", learns=True)[0]
    assert {weight.dtype for weight in fused.parameters()} == {torch.bfloat16}
    assert (tmp_path / "fused" / "model.safetensors").stat().st_size < 1.1 * (
        tmp_path / "half" / "model.safetensors"
    ).stat().st_size
    assert all(torch.equal(a, b.bfloat16()) for a, b in zip(fused.parameters(), exact.parameters(), strict=True))


def test_an_adapter_of_what_are_no_numbers_is_not_fused(base, tmp_path):
    finetune(adapter_config(base, tmp_path, "lora", "--train.steps=1"))
    shutil.copytree(tmp_path / "run" / "adapter", tmp_path / "nan", ignore=shutil.ignore_patterns("manifest.json"))
    held = load_file(tmp_path / "nan" / "adapter_model.safetensors")
    save_file(
        {name: weight * torch.nan for name, weight in held.items()}, tmp_path / "nan" / "adapter_model.safetensors"
    )
    with pytest.raises(DataError, match=r"nan: blocks\.0\.attention\.query\.weight with it holds what is no number"):
        fuse(FuseConfig(adapter=tmp_path / "nan", out=tmp_path / "model"))


@pytest.mark.parametrize("method", MERGED)
def test_merging_changes_nothing_and_is_undone_to_the_bit(method, base, tmp_path):
    settings = adapter_config(base, tmp_path, method, "--train.steps=1")
    model = equipped(load_base(settings)[0], settings)
    randomly_moved(model)
    with torch.inference_mode():
        adapted = model(TOKENS_BT)
        learning = merge(model)
        assert not any(isinstance(module, LearningLayer) for module in model.modules())
        torch.testing.assert_close(model(TOKENS_BT), adapted, rtol=0, atol=1e-5)
        unmerge(model, learning)
        assert torch.equal(model(TOKENS_BT), adapted)


def randomly_moved(model) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.moving.values():
            parameter += 0.05 * torch.randn_like(parameter)


# What stands before texts, or between parts ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["adapter", *PROMPTS])
def test_what_no_plain_model_computes_learns_too(method, speaker, tmp_path):
    given = ("--train.steps=100", "--train.validate_every=20", "--train.batch=4", "--optimizer.adapter_rate=0.05")
    finetune(
        adapter_config(speaker, tmp_path, method, *given, *(() if method == "adapter" else ("--prompts.tokens=8",)))
    )
    losses = [record["val_loss"] for record in records(tmp_path / "run") if "val_loss" in record]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("method", ["adapter", *PROMPTS])
def test_the_engine_answers_with_it_as_whole_passes_do(method, base, tmp_path):
    """Token after token from a cache, beside others, the same that one pass over everything chooses."""
    given = ("--train.steps=5", "--optimizer.adapter_rate=0.05")
    finetune(adapter_config(base, tmp_path, method, *given, *(() if method == "adapter" else ("--prompts.tokens=8",))))
    model, tokenizer = load_model(tmp_path / "run")
    texts, expected = ["color?", "a longer question"], []
    for text in texts:
        ids = tokenizer.encode(text, bos=tokenizer.bos_id is not None)
        read = len(ids)
        while len(ids) < read + 10 and ids[-1] not in tokenizer.end_ids:
            with torch.inference_mode():
                ids.append(int(model(torch.tensor([[*model.virtual_ids, *ids]]))[0, -1].argmax()))
        expected.append(tokenizer.decode([token for token in ids[read:] if token not in tokenizer.end_ids]))
    for draft in (None, "lookup"):
        assert Engine.load(tmp_path / "run", draft=draft).generate(texts, temperature=0, max_tokens=10) == expected


@pytest.mark.parametrize("method", PROMPTS)
def test_packed_conversations_each_begin_with_it(method, base, tmp_path):
    settings = adapter_config(base, tmp_path, method, "--train.steps=1", "--prompts.tokens=4")
    model = equipped(load_base(settings)[0], settings)
    randomly_moved(model)
    rows = [([9, 10, 11, 12], [0, 0, 1, 1]), ([13, 14, 15], [0, 1, 1]), ([20, 21, 22, 23, 24], [0, 1, 1, 1, 1])]
    encoded = [
        (np.array([*model.virtual_ids, *ids], np.uint32), np.array([*[0] * 4, *mask], np.bool_)) for ids, mask in rows
    ]
    losses = []
    for length in (11, 40):  # each in a row of its own, or all in one
        source = PackedSource(encoded, length, 0, 0)
        losses.append(float(NextToken().loss(model, source.batch(0, source.samples)).sum))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_bits_per_byte_are_not_told_of_a_model_that_reads_something_before_texts(base, tmp_path):
    finetune(adapter_config(base, tmp_path, "prompt", "--train.steps=1"))
    make_tokens(tmp_path)
    arguments = [f"--model={tmp_path / 'run'}", f"--data_dir={tmp_path}", f"--out={tmp_path / 'report'}"]
    with pytest.raises(DataError, match="bits_per_byte is of plain text"):
        evaluate(from_arguments(EvaluateConfig, [*arguments, "--tasks=[bits_per_byte]", "--device=cpu"]))


def test_a_draft_is_refused_that_does_not_know_what_is_read_before_texts_and_so_is_a_promise_without_kernels(
    base, tmp_path
):
    finetune(adapter_config(base, tmp_path, "prompt", "--train.steps=1"))
    with pytest.raises(ConfigError, match="what was learned for this model, which no draft knows"):
        Engine.load(tmp_path / "run", draft=base)
    with pytest.raises(ConfigError, match="an adapter of the method prompt, for which there are no kernels"):
        Engine.load(tmp_path / "run", config=EngineConfig(exact=True))


def test_dora_learns_over_rows_of_nought(tmp_path):
    base = save_tiny_model(tmp_path / "base", context=96)
    model, tokenizer = load_model(base)
    with torch.no_grad():
        model.get_submodule("blocks.0.attention.query").weight[3] = 0
    save_model(tmp_path / "pruned", model, tokenizer, inputs={}, card={})
    finetune(adapter_config(tmp_path / "pruned", tmp_path, "dora", "--train.steps=3", "--train.log_every=1"))
    assert [record["step"] for record in records(tmp_path / "run") if "gradient_norm" in record] == [1, 2, 3]
    learned = load_model(tmp_path / "run")[0].get_submodule("blocks.0.attention.query").weight
    assert learned.isfinite().all()


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_a_base_that_holds_what_is_no_number_is_named(method, base, tmp_path):
    model, tokenizer = load_model(base)
    with torch.no_grad():
        model.get_submodule("blocks.0.feedforward.up").weight[0, 0] = torch.inf
    save_model(tmp_path / "broken", model, tokenizer, inputs={}, card={})
    with pytest.raises(DataError, match=r"broken: blocks\.0\.feedforward\.up\.weight holds what is no number"):
        finetune(config(tmp_path / "broken", facts(tmp_path / "d.jsonl"), tmp_path / "run", f"--method={method}"))


# QLoRA ---------------------------------------------------------------------------------------------------------------


def test_a_base_quantized_before_trains_as_one_that_is_quantized_then(base, tmp_path):
    quantize(QuantizeConfig(model=base, out=tmp_path / "nf4", scheme="nf4"))
    for name, model in (("then", base), ("before", tmp_path / "nf4")):
        finetune(adapter_config(model, tmp_path, "qlora", "--train.steps=4", out=name))
    assert weights(tmp_path / "then") == weights(tmp_path / "before")
    one, other = (load_model(tmp_path / name)[0](TOKENS_BT) for name in ("then", "before"))
    assert torch.equal(one, other)


def test_a_run_that_goes_on_from_one_moves_every_weight(base, tmp_path):
    finetune(adapter_config(base, tmp_path, "qlora", "--train.steps=2"))
    finetune(config(tmp_path / "run", tmp_path / "d.jsonl", tmp_path / "on", "--train.steps=2", *FAST))
    model, before = load_model(tmp_path / "on")[0], load_model(tmp_path / "run", learns=True)[0]
    assert not storages(model)
    assert all(not torch.equal(one, other) for one, other in zip(model.parameters(), before.parameters(), strict=True))
    assert {name for name, _ in model.named_parameters()} == {
        name for name, _ in load_model(base)[0].named_parameters()
    }


# Rates and refusals --------------------------------------------------------------------------------------------------


def test_lora_plus_moves_one_matrix_faster(base, tmp_path, monkeypatch):
    stages = []
    monkeypatch.setattr(room, "run_stage", lambda stage, config: stages.append(stage) or {})
    finetune(adapter_config(base, tmp_path, "lora", "--lora.up_rate=16"))
    model = stages[0].model()
    names = {parameter: name.rpartition(".")[2] for name, parameter in model.named_parameters()}
    for settings, rate in ((OptimizerConfig(), 0.001), (OptimizerConfig(name="adamw", rate=0.003), 0.003)):
        rates = {
            names[parameter]: group["peak"]
            for optimizer in build_optimizers(model, settings)
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        assert rates == {"down": pytest.approx(rate), "up": pytest.approx(16 * rate)}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--method=lora", "--lora.targets=[querry]"), "which fits no layer; did you mean query?"),
        (("--method=lora", "--lora.targets=[q_proj]"), "which fits no layer; here it is query"),
        (("--method=lora", "--lora.targets=[all-linear]"), 'which fits no layer; here it is "*"'),
        (("--method=lora", "--lora.rank=33"), "lora.rank is 33, but blocks.0.attention.query has 32 inputs"),
        (("--method=lora", "--train.devices=2", "--train.tensor_parallel=2"), "tensor_parallel divides layers"),
        (("--method=lora", "--resize_vocabulary=true"), "resize_vocabulary is for the method full"),
        (("--method=qlora", "--train.parallel=fsdp"), "fsdp divides weights"),
        (("--method=adapter", "--bottleneck.width=33"), "bottleneck.width is 33, wider than the model, 32"),
        (("--method=prompt", "--prompts.tokens=95"), "prompts.tokens is 95, which leaves no room in a row of 96"),
        (("--method=prefix", "--train.recompute=full"), "neither train.compile nor train.recompute"),
        (("--method=p_tuning", "--train.parallel=fsdp"), "fsdp cannot divide what p_tuning learns"),
        (("--lora.rank=4",), "lora.rank does nothing under the method full"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, said, base, tmp_path):
    with pytest.raises(SeedbedError) as told:
        finetune(config(base, facts(tmp_path / "d.jsonl"), tmp_path / "run", "--train.steps=1", *arguments))
    assert said in told.value.problem and "\n" not in told.value.problem


@pytest.mark.parametrize("method", PROMPTS)
def test_a_stage_that_puts_nothing_before_texts_refuses_what_would_be_learned_there(method, base, tmp_path):
    with pytest.raises(ConfigError, match=f"the method {method} is for finetune"):
        build_adapter(TuningConfig(model=base, out=tmp_path, method=method))


def test_a_base_in_other_bits_is_refused(base, tmp_path):
    quantize(QuantizeConfig(model=base, out=tmp_path / "int8", scheme="int8"))
    with pytest.raises(ConfigError, match=r"quantized already \(int8\), and qlora is over nf4"):
        finetune(adapter_config(tmp_path / "int8", tmp_path, "qlora", "--train.steps=1"))


def test_another_base_in_the_same_place_is_refused(tmp_path):
    base = save_tiny_model(tmp_path / "base", context=96)
    finetune(adapter_config(base, tmp_path, "lora", "--train.steps=1"))
    shutil.rmtree(base)
    save_tiny_model(base, context=96, layers=2)
    with pytest.raises(DataError, match="was trained over another model than"):
        load_model(tmp_path / "run")
    shutil.rmtree(base)
    with pytest.raises(DataError, match=r"there is no such folder\n.*\n.*seedbed fuse --model BASE --adapter"):
        load_model(tmp_path / "run")


def test_a_base_of_the_same_shape_that_is_another_is_told(base, tmp_path, caplog):
    """Not a copy of it, nor the same in fewer bits; and one of transformers, which has no manifest, is known, too."""
    finetune(adapter_config(base, tmp_path, "lora", "--train.steps=1"))
    trained = tmp_path / "run"
    shutil.copytree(base, tmp_path / "copy")
    other = save_tiny_model(tmp_path / "other", context=96, width=32, layers=2, rope_base=5000.0)
    quantize(QuantizeConfig(model=base, out=tmp_path / "nf4", scheme="nf4"))
    quantize(QuantizeConfig(model=other, out=tmp_path / "other4", scheme="nf4"))
    finetune(config(base, tmp_path / "d.jsonl", tmp_path / "later", "--train.steps=1", "--length=64"))

    def told(over: Path) -> bool:
        caplog.clear()
        Engine.load(over, adapters={"mine": trained})
        by_rows = "was trained over another model than" in caplog.text
        caplog.clear()
        Engine.load(over, merge=trained)
        assert ("was trained over another model than" in caplog.text) == by_rows
        return by_rows

    places = {name: tmp_path / name for name in ("copy", "nf4", "other", "other4", "later")}
    assert {name: told(place) for name, place in places.items()} == {
        "copy": False,
        "nf4": False,
        "other": True,
        "other4": True,
        "later": True,
    }
    caplog.clear()
    fuse(FuseConfig(adapter=trained, model=other, out=tmp_path / "fused"))
    assert f"{trained / 'adapter'} was trained over another model than {other} holds" in caplog.text

    foreign = foreign_copy(base, tmp_path / "foreign")
    finetune(adapter_config(foreign, tmp_path, "lora", "--train.steps=1", out="over"))
    caplog.clear()
    Engine.load(foreign, merge=tmp_path / "over")
    assert not caplog.text
    Engine.load(foreign, merge=trained)
    assert "was trained over another model than" in caplog.text


def foreign_copy(base: Path, folder: Path) -> Path:
    """The same as another tool would have made it."""
    shutil.copytree(base, folder)
    for name in ("manifest.json", "seedbed.json"):
        (folder / name).unlink()
    return folder


def test_the_whole_of_a_model_in_few_bits_is_what_it_computes_with(base, tmp_path):
    quantize(QuantizeConfig(model=base, out=tmp_path / "nf4", scheme="nf4"))
    model = load_model(tmp_path / "nf4")[0]
    expected = model(TOKENS_BT)
    torch.testing.assert_close(made_whole(model)(TOKENS_BT), expected, rtol=0, atol=1e-6)


def test_an_adapter_over_nf4_takes_less_than_a_third_of_the_bytes_of_the_base_in_fp32():
    """All that is held while it learns: the base's bits, what is made of them in passing, and the rest of a step."""
    figures = qlora_memory.measure()
    assert all(qlora_memory.met(figures).values()) and figures["base_share"] < 0.15
    assert figures["largest_logit"] > 100 * figures["merged_difference"]
