"""What `seedbed benchmark` tells is what happened, by a clock and a meter that the test turns."""

from __future__ import annotations

import json
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

import seedbed.evaluation.benchmark as room
from seedbed.configuration import from_arguments
from seedbed.errors import ConfigError, DataError
from seedbed.evaluation.benchmark import benchmark
from seedbed.evaluation.config import BenchmarkConfig
from seedbed.inference.engine import Engine
from seedbed.model.accounting import cache_bytes, count_parameters
from seedbed.runs import open_folder, read_manifest
from tests.tiny import save_tiny_model

SMALL = {"batch": [1, 2], "prompt_tokens": [5], "output_tokens": [4], "device": "cpu"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("base") / "model", context=256, width=32, layers=2)


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only in steps of the engine, one in each; and three joules."""
    now = SimpleNamespace(seconds=0.0)
    step = Engine.step

    def second(engine):
        now.seconds += 1
        return step(engine)

    monkeypatch.setattr(Engine, "step", second)
    monkeypatch.setattr(room, "time", SimpleNamespace(perf_counter=lambda: now.seconds))
    monkeypatch.setattr(room, "EnergyCounter", lambda: SimpleNamespace(read=lambda: 3 * now.seconds))
    return now


def medians(case):
    return {name: case[name] and case[name]["median"] for name in room.COLUMNS}


def test_each_number_follows_from_the_clock(folder, clock):
    """2 × 10 tokens are read in the first step, then each gives one row of two tokens."""
    config = BenchmarkConfig(model=folder, batch=[2], prompt_tokens=[10], output_tokens=[5], repeats=2, device="cpu")
    [case] = benchmark(config)["cases"]
    model = Engine.load(folder).model.config
    assert medians(case) == {
        "first_ms": 1000,
        "between_ms": 1000,
        "latency_ms": 5000,
        "prefill_tokens_per_s": 20,
        "decode_tokens_per_s": 2,
        "tokens_per_s": 2,
        "joules_per_token": 1.5,
        "cache_mb": pytest.approx(2 * cache_bytes(model, 64) / 1e6),
    }
    assert (case["batch"], case["prompt_tokens"], case["output_tokens"]) == (2, 10, 5)


def test_rows_that_wait_for_their_prompt_are_told_as_they_are(folder, clock):
    """512 tokens a step: of four prompts of 250, two are read at once, then one and a half beside two who decode."""
    config = BenchmarkConfig(model=folder, batch=[4], prompt_tokens=[250], output_tokens=[3], repeats=1, device="cpu")
    case = medians(benchmark(config)["cases"][0])
    assert case["first_ms"] == 1500 and case["latency_ms"] == 3500  # two after one second, two after two
    assert case["prefill_tokens_per_s"] == 4 * 250 / 2
    assert case["decode_tokens_per_s"] == (12 - 6) / 2 and case["tokens_per_s"] == 12 / 4


def test_one_token_has_nothing_between(folder, clock):
    config = BenchmarkConfig(model=folder, batch=[1], prompt_tokens=[5], output_tokens=[1], device="cpu")
    case = benchmark(config)["cases"][0]
    assert case["tokens_per_s"]["median"] == 1
    assert all(case[name] is None for name in ("between_ms", "decode_tokens_per_s", "cache_mb"))


def test_repeats_are_told_by_median_least_and_most_and_the_warm_up_by_nothing(folder, monkeypatch):
    rates = iter([99.0, 99.0, 3.0, 1.0, 8.0])
    monkeypatch.setattr(room, "answer", lambda *_: dict.fromkeys(room.COLUMNS, next(rates)))
    config = BenchmarkConfig(model=folder, **SMALL | {"batch": [1]}, warm_up=2, repeats=3)
    assert benchmark(config)["cases"][0]["tokens_per_s"] == {"median": 3.0, "least": 1.0, "most": 8.0}
    assert next(rates, None) is None


def test_answers_are_as_long_as_asked_and_no_prompt_is_found_in_the_cache(folder, monkeypatch):
    """Also of a model that knows no other token than one that ends."""
    submitted, submit, load = [], Engine.submit, Engine.load

    def endings(*arguments, **settings):
        engine = load(*arguments, **settings)
        engine.tokenizer.end_ids = tuple(range(3, engine.vocabulary))
        return engine

    def watched(engine, ids, sampling, **asked):
        submitted.append(submit(engine, ids, sampling, **asked))
        return submitted[-1]

    monkeypatch.setattr(Engine, "load", endings)
    monkeypatch.setattr(Engine, "submit", watched)
    benchmark(BenchmarkConfig(model=folder, batch=[3], prompt_tokens=[70], output_tokens=[9], device="cpu"))
    assert len(submitted) == 3 * 4
    assert {(len(each.made), each.reason) for each in submitted} == {(9, "length")}
    prompts = [tuple(each.tokens[:70]) for each in submitted]
    assert len({prompt[:10] for prompt in prompts}) == len(prompts)
    first = prompts[:]
    submitted.clear()
    benchmark(BenchmarkConfig(model=folder, batch=[3], prompt_tokens=[70], output_tokens=[9], device="cpu"))
    assert [tuple(each.tokens[:70]) for each in submitted] == first


def test_the_folder_holds_the_numbers_a_table_and_a_picture(folder, tmp_path, capsys):
    config = BenchmarkConfig(model=folder, out=tmp_path / "speed", **SMALL | {"prompt_tokens": [5, 70]})
    result = benchmark(config)
    said = capsys.readouterr()
    open_folder(config.out, "benchmark")
    assert json.loads((config.out / "result.json").read_text()) == result
    assert list(read_manifest(config.out).inputs) == ["model"]
    assert [(case["prompt_tokens"], case["batch"]) for case in result["cases"]] == [(5, 1), (5, 2), (70, 1), (70, 2)]
    page = (config.out / "README.md").read_text()
    for line in room.table(result).rows:
        assert f"| {' | '.join(line)} |" in page
        assert any(row.split() == " ".join(line).split() for row in said.out.splitlines())
    picture = ElementTree.fromstring((config.out / "throughput.svg").read_text())
    assert len(picture.findall("{*}polyline")) == 2
    assert said.err == ""  # not a terminal


def test_the_machine_the_versions_and_the_memory_are_written_down(folder):
    plain, whole = (benchmark(BenchmarkConfig(model=folder, **SMALL, weights=kind)) for kind in ("stored", "int8"))
    config = Engine.load(folder).model.config
    assert plain["parameters"] == whole["parameters"] == count_parameters(config).total
    assert plain["weights_mb"] >= 4 * plain["parameters"] / 1e6 > whole["weights_mb"]
    assert plain["peak_rss_mb"] > 50 and plain["machine"]["cpu"]["cores"] >= 1
    assert plain["versions"]["torch"]["version"] and plain["versions"]["seedbed"]
    assert whole["weights"] == "int8" and json.dumps(plain, allow_nan=False)


def test_energy_that_the_machine_does_not_tell_is_unknown(folder, monkeypatch, capsys):
    monkeypatch.setattr(room, "EnergyCounter", lambda: SimpleNamespace(read=lambda: None))
    result = benchmark(BenchmarkConfig(model=folder, **SMALL))
    assert result["energy"].startswith("unknown") and all(case["joules_per_token"] is None for case in result["cases"])
    assert "Energy: unknown" in (out := capsys.readouterr().out) and "J a token" not in out


def test_what_cannot_be_measured_is_refused_before_the_work(folder, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="are 260 tokens, the model's context is 256"):
        benchmark(BenchmarkConfig(model=folder, **SMALL | {"prompt_tokens": [9, 256]}))
    for wrong in ({"batch": []}, {"batch": [0]}, {"prompt_tokens": [-1]}, {"output_tokens": [2**30]}, {"repeats": 0}):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))} must be"):
            BenchmarkConfig(model=folder, **SMALL | wrong)
    with pytest.raises(DataError, match="nowhere"):
        benchmark(BenchmarkConfig(model=tmp_path / "nowhere", **SMALL))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    monkeypatch.setattr(room, "measure", None)
    with pytest.raises(ConfigError, match="exists and is not empty"):
        benchmark(BenchmarkConfig(model=folder, out=tmp_path / "full", **SMALL))


def test_lists_are_given_with_commas():
    config = from_arguments(BenchmarkConfig, ["--model=m", "--batch=1,8,32", "--output_tokens", "64"])
    assert (config.batch, config.prompt_tokens, config.output_tokens) == ([1, 8, 32], [64], [64])
