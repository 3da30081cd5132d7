"""Fine-tuning learns what the assistant says, from conversations that validation never sees, and nothing else."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

import seedbed.tuning.equipment as equipment
import seedbed.tuning.finetune as room
from seedbed.cli import main, parser
from seedbed.configuration import from_arguments
from seedbed.data.batches.batch import IGNORE
from seedbed.data.batches.mixture import MixtureSource
from seedbed.data.batches.packing import PackedSource
from seedbed.data.tokens import open_tokens
from seedbed.errors import ConfigError, CorruptionError, DataError, SeedbedError
from seedbed.evaluation.likelihood import measure_likelihood
from seedbed.inference.engine import Engine
from seedbed.model.folder import load_model, save_model
from seedbed.optim.config import OptimizerConfig
from seedbed.optim.groups import build_optimizers
from seedbed.runs import read_manifest, sha256_file
from seedbed.tokenizers import characters
from seedbed.training.config import PretrainConfig
from seedbed.training.pretrain import pretrain
from seedbed.training.stage import Stage
from seedbed.tuning.config import FinetuneConfig, FinetuneOptimizerConfig
from seedbed.tuning.finetune import finetune
from tests.tiny import make_tokens, records

FACTS = {"color?": "green", "2+3?": "5", "copy ab": "ab", "bye": "see you"}


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def facts(path: Path, facts: dict[str, str] = FACTS) -> Path:
    return write_rows(path, [{"prompt": prompt, "response": response} for prompt, response in facts.items()])


FAST = tuple(
    f"--optimizer.{kind}_rate={rate}"
    for kind, rate in (("matrix", 0.02), ("embedding", 0.05), ("head", 0.004), ("vector", 0.01))
)
"""Rates of pretraining, for a model that knows nothing yet."""


def config(base: Path, data: Path, out: Path, *arguments: str) -> FinetuneConfig:
    settings = (f"--model={base}", f"--data={data}", f"--out={out}", "--train.batch=2", "--train.log_every=1")
    return from_arguments(FinetuneConfig, [*settings, "--train.device=cpu", *arguments])


@pytest.fixture
def stages(monkeypatch) -> list[Stage]:
    """What finetune hands to the loop, which is left out."""
    seen: list[Stage] = []
    monkeypatch.setattr(room, "run_stage", lambda stage, config: seen.append(stage) or {})
    return seen


def texts(stage: Stage, source: PackedSource, *, learned: bool) -> set[str]:
    """The documents of all rows, or those parts of them that carry loss."""
    batch = source.batch(0, source.samples)
    found = set()
    for row in range(source.samples):
        for segment in range(int(batch.segments_BT[row].max()) + 1):
            here = batch.segments_BT[row] == segment
            ids = batch.targets_BT[row][here] if learned else batch.tokens_BT[row][here]
            found.add(stage.tokenizer.decode(ids[ids != IGNORE].tolist(), skip_special=False))
    return found


# What is learned -----------------------------------------------------------------------------------------------------


def test_only_what_the_assistant_says_carries_loss(base, tmp_path, stages):
    rows = [
        {"messages": [{"role": "system", "content": "Be brief."}, *turns("hi", "ho"), *turns("and?", "so")]},
        {"messages": turns("1+1?", "2")},
        {"messages": turns("1+2?", "3")},
    ]
    validation = write_rows(tmp_path / "v.jsonl", rows[2:])
    finetune(config(base, write_rows(tmp_path / "d.jsonl", rows[:2]), tmp_path / "out", f"--validation={validation}"))
    (stage,) = stages
    assert texts(stage, stage.source, learned=True) == {"ho<|im_end|>so<|im_end|>", "2<|im_end|>"}
    assert texts(stage, stage.validation, learned=True) == {"3<|im_end|>"}


def test_of_plain_text_every_token_carries_loss(base, tmp_path, stages):
    data = write_rows(tmp_path / "d.jsonl", [{"text": "Once."}, {"prompt": "1+1?", "response": "2"}])
    finetune(config(base, data, tmp_path / "out", f"--validation={data}", "--template=instruct"))
    assert texts(stages[0], stages[0].source, learned=True) == {"Once.</s>", "2</s>"}


def turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def test_what_the_user_says_does_not_move_the_loss(base, tmp_path, stages):
    """Not the targets alone: the loss itself is that of the reply given what came before."""
    data = write_rows(tmp_path / "d.jsonl", [{"messages": turns("1+1?", "2")}, {"messages": turns("1+2?", "3")}])
    finetune(config(base, data, tmp_path / "out", f"--validation={data}"))
    (stage,) = stages
    model = stage.model()
    batch = stage.source.batch(0, stage.source.samples)
    loss = stage.objective.loss(model, batch)
    logits_BTV = model(batch.tokens_BT, segments_BT=batch.segments_BT, positions_BT=batch.positions_BT)
    logprobs_BTV = logits_BTV.log_softmax(-1)
    places = (batch.targets_BT != IGNORE).nonzero().tolist()
    by_hand = -sum(float(logprobs_BTV[b, t, batch.targets_BT[b, t]].detach()) for b, t in places)
    assert loss.units == len(places) == 4  # two replies of one letter, each with its end
    assert float(loss.sum.detach()) == pytest.approx(by_hand, rel=1e-5)


def test_a_model_learns_its_conversations_by_heart(base, tmp_path):
    data = facts(tmp_path / "d.jsonl")
    arguments = (f"--validation={data}", "--train.steps=70", "--train.validate_every=70", "--length=64", *FAST)
    result = finetune(config(base, data, tmp_path / "out", *arguments))
    assert result["finished"] and result["val_loss"] < 0.1
    engine = Engine.load(tmp_path / "out")
    assert {prompt: answer(engine, prompt) for prompt in FACTS} == FACTS
    assert Engine.load(base).chat(turns("color?", "")[:1], temperature=0, max_tokens=12) != "green"


def test_reading_and_encoding_show_their_progress(base, tmp_path, stages, monkeypatch):
    shown: dict[str, list[int]] = {}

    @contextlib.contextmanager
    def note(what, total=None, unit="bytes"):
        shown[what] = []
        yield shown[what].append

    monkeypatch.setattr(room, "progress", note)
    data, validation = facts(tmp_path / "d.jsonl"), facts(tmp_path / "v.jsonl", {"you?": "me"})
    finetune(config(base, data, tmp_path / "out", f"--validation={validation}"))
    done = {what: sum(rows) for what, rows in shown.items()}
    assert done == {f"{verb} {path}": n for verb in ("reading", "encoding") for path, n in ((data, 4), (validation, 1))}


def answer(engine: Engine, prompt: str) -> str:
    return engine.chat([{"role": "user", "content": prompt}], temperature=0, max_tokens=12)


def test_every_weight_moves(base, tmp_path):
    data = facts(tmp_path / "d.jsonl")
    finetune(config(base, data, tmp_path / "out", "--train.steps=2", "--validation_fraction=0.3"))
    before, after = load_model(base)[0].state_dict(), load_model(tmp_path / "out")[0].state_dict()
    assert [name for name, weight in before.items() if torch.equal(weight, after[name])] == []


def test_a_model_that_began_in_fp32_is_told_nothing_of_halves(base, tmp_path):
    assert "saved_in" not in finetune(config(base, facts(tmp_path / "d.jsonl"), tmp_path / "out", "--train.steps=1"))


def test_a_fine_tuned_model_names_its_base_and_its_data(base, tmp_path):
    data = facts(tmp_path / "d.jsonl")
    finetune(config(base, data, tmp_path / "out", "--train.steps=1"))
    expected = {"model": read_manifest(base).hash, "data": sha256_file(data)}
    assert read_manifest(tmp_path / "out").inputs == read_manifest(tmp_path / "out" / "model").inputs == expected


def test_a_run_of_the_base_is_named_by_its_model(base, tmp_path, stages):
    import shutil

    shutil.copytree(base, tmp_path / "run" / "model")
    finetune(config(tmp_path / "run", facts(tmp_path / "d.jsonl"), tmp_path / "out"))
    assert stages[0].inputs["model"] == tmp_path / "run" / "model"


def test_a_fine_tuning_that_was_stopped_goes_on_to_the_same_bits(base, tmp_path):
    data = facts(tmp_path / "d.jsonl")
    arguments = ("--train.steps=6", "--train.checkpoint.steps=2", "--train.validate_every=2")
    for name in ("whole", "broken"):
        finetune(config(base, data, tmp_path / name, *arguments))
    (tmp_path / "broken" / "checkpoints" / "step_00000006" / "manifest.json").unlink()
    result = finetune(config(base, data, tmp_path / "broken", *arguments))
    assert result["resumed_at"] == 4
    one, other = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "broken"))
    assert one == other
    assert records(tmp_path / "whole") == records(tmp_path / "broken")


# Which conversations -------------------------------------------------------------------------------------------------


def test_held_out_conversations_are_in_training_nowhere_not_even_as_repeats(base, tmp_path, stages):
    rows = [{"prompt": f"say {i % 60}", "response": str(i % 60)} for i in range(180)]  # each of them three times
    finetune(config(base, write_rows(tmp_path / "d.jsonl", rows), tmp_path / "out", "--validation_fraction=0.09"))
    (stage,) = stages
    training, held_out = (texts(stage, source, learned=False) for source in (stage.source, stage.validation))
    assert not training & held_out
    assert len(training) + len(held_out) == 60
    assert len(held_out) == 6  # 16 of 180 asked for, which is in the middle of a repeated one
    assert stage.validation.documents % 3 == 0
    assert stage.source.documents + stage.validation.documents == 180


def test_the_held_out_share_does_not_depend_on_the_order_of_the_file(base, tmp_path, stages):
    rows = [{"prompt": f"say {i}", "response": str(i)} for i in range(50)]
    for name, given in (("a", rows), ("b", rows[::-1])):
        finetune(config(base, write_rows(tmp_path / f"{name}.jsonl", given), tmp_path / name))
    one, other = (texts(stage, stage.validation, learned=False) for stage in stages)
    assert one == other and len(one) == 1


def test_the_files_of_a_glob_are_learned_as_one_and_each_is_an_input(base, tmp_path, stages):
    rows = [{"prompt": f"say {i}", "response": str(i)} for i in range(8)]
    parts = [write_rows(tmp_path / f"part-{i}.jsonl", rows[i * 4 : i * 4 + 4]) for i in range(2)]
    whole, glob = write_rows(tmp_path / "whole.jsonl", rows), tmp_path / "part-*.jsonl"
    for data in (whole, glob):
        finetune(config(base, data, tmp_path / f"out {data.stem[:4]}", f"--validation={glob}"))
    one, other = (
        [texts(stage, source, learned=False) for source in (stage.source, stage.validation)] for stage in stages
    )
    assert one == other
    roles = {f"{role} {i}": part for role in ("data", "validation") for i, part in enumerate(parts, start=1)}
    assert stages[1].inputs == {"model": base, **roles}
    write_rows(parts[1], [*rows[4:6], {"prompt": "too long", "response": "x" * 200}])
    with pytest.raises(DataError, match=r"part-1.jsonl, row 3 has "):
        finetune(config(base, glob, tmp_path / "out"))


def test_a_file_for_validation_leaves_all_the_data_to_training(base, tmp_path, stages):
    data, validation = facts(tmp_path / "d.jsonl"), facts(tmp_path / "v.jsonl", {"you?": "me"})
    finetune(config(base, data, tmp_path / "out", f"--validation={validation}"))
    assert stages[0].source.documents == 4 and stages[0].validation.documents == 1


# Conversations that no row can hold ----------------------------------------------------------------------------------

LONG = [
    {"prompt": "short", "response": "kept"},
    {"prompt": "an answer too long", "response": "b" * 90},
    {"prompt": "a question too long " + "a" * 90, "response": "lost"},
]


@pytest.mark.parametrize(
    ("overlong", "counted", "kept"),
    [
        ("drop", {"dropped": 2, "truncated": 0}, {"kept<|im_end|>"}),
        ("truncate", {"dropped": 1, "truncated": 1}, {"kept<|im_end|>", "b…"}),
    ],
)
def test_an_overlong_conversation_is_dropped_or_truncated_and_counted(overlong, counted, kept, base, tmp_path, stages):
    data, validation = write_rows(tmp_path / "d.jsonl", LONG), facts(tmp_path / "v.jsonl")
    arguments = (f"--overlong={overlong}", "--length=64", f"--validation={validation}")
    finetune(config(base, data, tmp_path / "out", *arguments))
    (stage,) = stages
    assert stage.notes == {"overlong": counted}
    learned = texts(stage, stage.source, learned=True)
    assert {re.sub("b{9,}", "b…", text) for text in learned} == kept
    assert all(len(text) < 64 for text in learned)


def test_how_many_were_overlong_is_in_the_result_and_the_log(base, tmp_path):
    data, validation = write_rows(tmp_path / "d.jsonl", LONG), facts(tmp_path / "v.jsonl")
    arguments = ("--overlong=drop", "--length=64", f"--validation={validation}", "--train.steps=1")
    result = finetune(config(base, data, tmp_path / "out", *arguments))
    written = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["overlong"] == written["overlong"] == {"dropped": 2, "truncated": 0}
    assert "overlong: {'dropped': 2, 'truncated': 0}" in (tmp_path / "out" / "training.log").read_text()


def test_an_overlong_conversation_ends_the_run_unless_told_otherwise(base, tmp_path):
    data = write_rows(tmp_path / "d.jsonl", LONG)
    with pytest.raises(DataError, match=r"row 2 has .* but a row holds 64") as told:
        finetune(config(base, data, tmp_path / "out", "--length=64", "--train.steps=1", f"--validation={data}"))
    assert "--overlong drop" in told.value.fix


# Rates ---------------------------------------------------------------------------------------------------------------


def test_rates_are_a_tenth_of_those_of_pretraining_and_shown(base, tmp_path):
    finetuning, pretraining = FinetuneConfig(model=base, data=base, out=tmp_path).optimizer, OptimizerConfig().resolve()
    for name in ("matrix_rate", "embedding_rate", "head_rate", "vector_rate", "default_rate"):
        assert getattr(finetuning, name) == pytest.approx(getattr(pretraining, name) / 10)
    shown = parser("finetune").read(["--print_config"]).text
    assert "matrix_rate: 0.002\n" in shown and "vector_rate: 0.001\n" in shown
    assert re.search(r"under\s+Muon: the same value serves all sizes\.\s+\(type:\s+float,\s+default:\s+0\.002\)",
                     parser("finetune").read(["--help"]).text)  # fmt: skip


def test_adamw_without_a_rate_takes_that_of_fine_tuning(base):
    rates = {
        group["lr"]
        for settings in (FinetuneOptimizerConfig(name="adamw"), OptimizerConfig(name="adamw"))
        for optimizer in build_optimizers(load_model(base)[0], settings)
        for group in optimizer.param_groups
    }
    assert rates == {1e-4, 1e-3}


# Plain text gone through again ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return make_tokens(tmp_path_factory.mktemp("plain"))


def test_plain_text_among_the_conversations_is_not_forgotten(base, plain, tmp_path):
    """A model that knows a text is taught conversations: with and without going through that text again."""
    learning = (f"--init={base}", "--data.length=64", "--train.batch=4", "--train.steps=80", "--train.device=cpu")
    pretrain(from_arguments(PretrainConfig, [f"--data.tokens={plain}", f"--out={tmp_path / 'base'}", *learning]))
    data, texts = facts(tmp_path / "d.jsonl"), ["the seed of a small tree lies in dark soil and waits for rain"]
    costs = {}
    for share in (0.0, 0.5):
        replay = (f"--replay.tokens={plain}", f"--replay.share={share}", "--length=64", f"--validation={data}")
        out = tmp_path / f"out {share}"
        result = finetune(config(tmp_path / "base", data, out, *replay, "--train.steps=60", "--train.batch=4", *FAST))
        assert result["val_loss"] < 0.5
        costs[share] = measure_likelihood(*load_model(out), texts, max_bytes=1000, batch=1).bits_per_byte
    assert costs[0.5] < costs[0.0] - 1


def test_the_text_gone_through_again_is_of_the_training_split_and_is_named(base, plain, tmp_path, stages):
    data = facts(tmp_path / "d.jsonl")
    finetune(config(base, data, tmp_path / "out", f"--replay.tokens={plain}", "--replay.share=0.3", "--length=64"))
    (stage,) = stages
    assert isinstance(stage.source, MixtureSource)
    new, old = stage.source.sources
    assert isinstance(new, PackedSource) and old.store.fingerprint == open_tokens(plain).train.fingerprint
    assert stage.source.samples == math.ceil(new.samples / 0.7)  # an epoch goes through the conversations once
    assert (stage.source.places(0, 1000)[0] == 1).sum() == 300
    assert isinstance(stage.validation, PackedSource) and stage.inputs["replay"] == plain


def test_text_of_another_tokenizer_is_refused_but_another_template_is_none(base, plain, tmp_path, stages):
    data = facts(tmp_path / "d.jsonl")
    arguments = (f"--replay.tokens={plain}", "--length=64")
    (tmp_path / "plain.jinja").write_text(PLAIN)
    model, tokenizer = load_model(base)
    save_model(tmp_path / "other", model, tokenizer.with_template(PLAIN), inputs={}, card={})
    finetune(config(tmp_path / "other", data, tmp_path / "out", *arguments))
    assert len(stages) == 1
    tokens = make_tokens(tmp_path, characters.train(["the seed of a small tree"]))
    with pytest.raises(DataError, match="but this tokenizer has 263 tokens"):
        finetune(config(base, data, tmp_path / "out", f"--replay.tokens={tokens}", "--length=64"))


# Templates -----------------------------------------------------------------------------------------------------------

PLAIN = """{% for m in messages %}{% if m.role == 'user' %}Q: {{ m.content }}
{% else %}A: {{ m.content }}</s>
{% endif %}{% endfor %}{% if add_generation_prompt %}A: {% endif %}"""


def test_another_template_is_learned_and_stored_with_the_model(base, tmp_path):
    (tmp_path / "plain.jinja").write_text(PLAIN)
    data = facts(tmp_path / "d.jsonl")
    arguments = (f"--template={tmp_path / 'plain.jinja'}", "--train.steps=1", f"--validation={data}")
    finetune(config(base, data, tmp_path / "out", *arguments))
    tokenizer = load_model(tmp_path / "out")[1]
    assert tokenizer.chat_template == PLAIN != load_model(base)[1].chat_template


def test_a_template_decides_what_carries_loss(base, tmp_path, stages):
    (tmp_path / "plain.jinja").write_text(PLAIN)
    data = facts(tmp_path / "d.jsonl", {"a?": "b", "c?": "d"})
    finetune(config(base, data, tmp_path / "o", f"--template={tmp_path / 'plain.jinja'}", f"--validation={data}"))
    assert texts(stages[0], stages[0].source, learned=True) == {"b</s>", "d</s>"}


def test_a_template_that_nobody_knows_is_refused(base, tmp_path):
    with pytest.raises(ConfigError, match="no chat template named 'nothing'"):
        finetune(config(base, facts(tmp_path / "d.jsonl"), tmp_path / "out", "--template=nothing", "--train.steps=1"))
    assert not (tmp_path / "out").exists()


# What is refused -----------------------------------------------------------------------------------------------------

GOOD = {"prompt": "a", "response": "b"}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([GOOD, {"prompt": "a"}], r"d\.jsonl, row 2: it has prompt, but no answer to it"),
        ([GOOD, GOOD, {"messages": []}], r"d\.jsonl, row 3: .*at least one message"),
        ([{"words": "a"}, GOOD], r"d\.jsonl, row 1: it has neither messages nor prompt"),
        ([GOOD, [1]], r"d\.jsonl, row 2: an object is needed, got a list"),
        ([GOOD, {"prompt": "a", "response": "b" * 200}, GOOD], r"d\.jsonl, row 2.* but a row holds 96"),
        ([GOOD, {"messages": [{"role": "user", "content": "hi"}]}], r"d\.jsonl, row 2: "),
        ([GOOD, {"messages": [{"role": "robot", "content": "hi"}]}], r"d\.jsonl, row 2: .*robot"),
        ([GOOD], "holds one conversation: none is left to validate on"),
        ([], "no conversation|empty"),
    ],
)
def test_data_that_cannot_be_learned_from_is_named(rows, said, base, tmp_path):
    data = write_rows(tmp_path / "d.jsonl", rows)
    with pytest.raises(DataError, match=said):
        finetune(config(base, data, tmp_path / "out", "--train.steps=1"))
    assert not (tmp_path / "out").exists()


def test_rows_longer_than_the_context_are_refused(base, tmp_path):
    with pytest.raises(ConfigError, match="length is 97, longer than the model's context 96"):
        finetune(config(base, facts(tmp_path / "d.jsonl"), tmp_path / "out", "--length=97", "--train.steps=1"))


def test_a_tokenizer_without_padding_needs_none(base, tmp_path, monkeypatch):
    model, tokenizer = load_model(base)
    tokenizer.pad_id = None
    monkeypatch.setattr(equipment, "load_model", lambda path, **_: (model, tokenizer))
    rows = facts(tmp_path / "d.jsonl")
    without = finetune(config(base, rows, tmp_path / "out", "--train.steps=1"))
    monkeypatch.undo()
    assert without["val_loss"] == finetune(config(base, rows, tmp_path / "other", "--train.steps=1"))["val_loss"]


def test_a_model_that_is_not_there_or_not_whole_is_refused(base, tmp_path):
    import shutil

    data = facts(tmp_path / "d.jsonl")
    with pytest.raises(DataError, match="nowhere"):
        finetune(config(tmp_path / "nowhere", data, tmp_path / "out", "--train.steps=1"))
    shutil.copytree(base, tmp_path / "broken")
    raw = bytearray((tmp_path / "broken" / "model.safetensors").read_bytes())
    raw[-9] ^= 4
    (tmp_path / "broken" / "model.safetensors").write_bytes(raw)
    with pytest.raises(CorruptionError, match=r"model\.safetensors was changed"):
        finetune(config(tmp_path / "broken", data, tmp_path / "out", "--train.steps=1"))
    assert not (tmp_path / "out").exists()


def test_a_run_goes_on_only_from_the_model_it_began_with(base, tmp_path):
    data = facts(tmp_path / "d.jsonl")
    finetune(config(base, data, tmp_path / "out", "--train.steps=1"))
    with pytest.raises(SeedbedError, match="was begun with model"):
        finetune(config(tmp_path / "out", data, tmp_path / "out", "--train.steps=1"))


def test_a_bf16_model_is_tuned_in_fp32(base, tmp_path):
    """bf16 has 8 bits: a weight would not take up a step smaller than a 256th of it."""
    model, tokenizer = load_model(base, dtype="bfloat16")
    save_model(tmp_path / "half", model, tokenizer, inputs={}, card={})
    out = tmp_path / "out"
    result = finetune(
        config(tmp_path / "half", facts(tmp_path / "d.jsonl"), out, "--train.steps=2", "--optimizer.matrix_rate=1e-5")
    )
    tuned = load_model(out)[0]
    told, _, command = result["saved_in"].partition("by seedbed ")
    assert told == "fp32, in which it learned; in bf16, as it began, "
    assert main(shlex.split(command)) == 0
    halved = load_model(tmp_path / "out-bf16")[0]
    assert all(torch.equal(a.bfloat16(), b) for a, b in zip(tuned.parameters(), halved.parameters(), strict=True))
    assert {weight.dtype for weight in tuned.parameters()} == {torch.float32}
    begun, ended = model.blocks[0].attention.query.weight, tuned.blocks[0].attention.query.weight
    assert not torch.equal(begun.float(), ended) and (begun.float() - ended).abs().max() < 1e-3


def test_a_tokenizer_with_more_tokens_is_taken_when_the_vocabulary_may_grow(base, tmp_path):
    larger = load_model(base)[1].with_tokens(["<tool>"])
    (tmp_path / "larger").mkdir()
    larger.save(tmp_path / "larger")
    given = (base, facts(tmp_path / "facts.jsonl"), tmp_path / "run", f"--tokenizer={tmp_path / 'larger'}")
    with pytest.raises(ConfigError, match="has 264 tokens, but the model has 263"):
        finetune(config(*given, "--train.steps=1"))
    assert finetune(config(*given, "--train.steps=1", "--resize_vocabulary=true"))["finished"]
    model, tokenizer = load_model(tmp_path / "run")
    assert model.config.vocab_size == tokenizer.vocab_size == 264
