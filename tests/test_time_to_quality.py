"""The benchmark of time to quality trains both sides for the same time, and scores them on the same unseen books."""

from __future__ import annotations

import json
import math
import random
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from benchmarks import time_to_quality

from seedbed.data.tokens import open_tokens
from seedbed.model.accounting import count_parameters


@pytest.fixture
def few_books(tmp_path, monkeypatch):
    """A file of made-up books, and a benchmark as small as they are."""
    zstandard = pytest.importorskip("zstandard")
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnop", k=6)) for _ in range(60)]
    texts = [" ".join(words[(start * step) % 60] for step in range(1, 400)) for start in range(1, 21)]
    rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    books = tmp_path / "books.jsonl.zst"
    books.write_bytes(zstandard.compress(rows.encode()))
    monkeypatch.setattr(time_to_quality, "VOCABULARY", 300)
    monkeypatch.setattr(time_to_quality, "WINDOW", 16)
    monkeypatch.setattr(time_to_quality, "WARM", 1)
    monkeypatch.setattr(time_to_quality, "COUNTED", 2)
    sizes = {"vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    small = {"intermediate_size": 32, "max_position_embeddings": 16, "tie_word_embeddings": False}
    monkeypatch.setattr(time_to_quality, "PEER_SIZES", sizes | small)
    return books


SMALL = ("--model.width=16", "--model.layers=2", "--model.heads=2", "--model.context=16", "--train.compile=off")


def quality_run(**changes):
    asked = {"rate": 1.0, "batch": 2, "minutes": 0.002, "scored_on": "held_out", "seed": 0, "threads": 1}
    return time_to_quality.Run(**{"side": "ours", **asked, "options": SMALL, **changes})


def test_held_out_books_are_in_no_other_part(few_books, tmp_path):
    time_to_quality.write_tokens(few_books, tmp_path / "tokens")
    parts = {name: open_tokens(tmp_path / "tokens" / name) for name in ("tuning", "held_out")}
    assert parts["tuning"].train.fingerprint == parts["held_out"].train.fingerprint
    texts = {}
    for name, store in (("train", parts["tuning"].train), *((name, part.val) for name, part in parts.items())):
        texts[name] = {store.documents(number).tobytes() for number in range(store.n_docs)}
    assert [len(texts[name]) for name in ("train", "tuning", "held_out")] == [16, 2, 2]
    assert not texts["train"] & (texts["tuning"] | texts["held_out"]) and not texts["tuning"] & texts["held_out"]


@pytest.mark.parametrize(("side", "options"), [("ours", SMALL), ("peer", ())])
def test_each_side_of_time_to_quality_trains_for_its_budget(side, options, few_books, tmp_path):
    pytest.importorskip("transformers")
    time_to_quality.write_tokens(few_books, tmp_path / "tokens")
    rate = 1.0 if side == "ours" else 1e-3
    figures = time_to_quality.train(
        quality_run(side=side, rate=rate, options=options), tmp_path / "tokens" / "held_out"
    )
    assert figures["tokens"] == figures["steps"] * 2 * 16 and figures["steps"] >= 1
    assert 0 < figures["bpb"] < 8 and figures["parameters"] > figures["without_embedding"] > 0


def test_both_sides_are_scored_on_every_target_of_the_held_out_books(few_books, tmp_path):
    time_to_quality.write_tokens(few_books, tmp_path / "tokens")
    folder = tmp_path / "tokens" / "held_out"
    val = open_tokens(folder).val
    size = int(open_tokens(folder).tokenizer.token_bytes()[val.read(1, (val.n_tokens - 1) // 16 * 16 + 1)].sum())
    even = time_to_quality.bits_per_byte(lambda tokens: torch.zeros(*tokens.shape, 300), folder, "held_out")
    assert even == pytest.approx(math.log2(300) * ((val.n_tokens - 1) // 16 * 16) / size, rel=1e-6)


def test_the_rates_of_a_run_are_multiples_of_those_of_the_preset(tmp_path):
    one, two = (time_to_quality.our_config(quality_run(rate=rate), tmp_path, tmp_path) for rate in (1.0, 2.0))
    assert two.optimizer.matrix_rate == 2 * one.optimizer.matrix_rate
    assert two.optimizer.head_rate == 2 * one.optimizer.head_rate and two.train == one.train


def test_a_peer_s_rate_rises_then_falls_to_nothing_with_the_clock():
    llama = pytest.importorskip("benchmarks.peers.llama")
    rates = [llama.multiple(spent / 1000, 0.001) for spent in range(1000)]
    assert rates[0] > 0 and max(rates) == 1 and rates.index(max(rates)) == 49
    assert rates[-1] < 1e-5 and rates[524] == pytest.approx(0.5, abs=0.01)


def test_a_pair_that_is_finished_is_not_run_again(monkeypatch, tmp_path):
    (tmp_path / "pairs").mkdir()
    bench = time_to_quality.Bench(tmp_path, tmp_path, "this machine", says=False)
    monkeypatch.setattr(bench, "_run", lambda *runs: [{"bpb": 1.0, "tokens": 1}, {"bpb": 2.0, "tokens": 1}])
    pair = quality_run(), quality_run(side="peer")
    first = bench.pair(*pair)
    monkeypatch.setattr(bench, "_run", lambda *runs: pytest.fail("was run again"))
    assert bench.pair(*pair) == first
    with pytest.raises(pytest.fail.Exception):
        bench.pair(quality_run(seed=1), pair[1])


@pytest.mark.parametrize(("hashed", "refused"), [("this code", False), ("other code", True)])
def test_runs_of_other_code_are_not_mixed(hashed, refused, tmp_path):
    bench = time_to_quality.Bench(tmp_path, tmp_path, "this code", says=False)
    told = f"print('{json.dumps({'bpb': 1.0, 'depends': hashed})}')"
    process = subprocess.Popen([sys.executable, "-c", told], stdout=-1, stderr=-1, text=True)
    if refused:
        with pytest.raises(SystemExit, match="the code has changed"):
            bench._wait(process)
    else:
        assert bench._wait(process) == {"bpb": 1.0}


def test_the_best_run_of_a_sweep_is_none_that_diverged():
    assert time_to_quality.best([{"bpb": None}, {"bpb": 2.0}, {"bpb": 1.5}]) == {"bpb": 1.5}


def test_the_peer_of_time_to_quality_has_as_many_parameters_as_the_preset(tmp_path):
    transformers = pytest.importorskip("transformers")
    model = time_to_quality.our_config(quality_run(options=()), tmp_path, tmp_path).model
    own = count_parameters(replace(model, vocab_size=time_to_quality.VOCABULARY).resolve()).total
    with torch.device("meta"):
        peer = transformers.LlamaForCausalLM(transformers.LlamaConfig(**time_to_quality.PEER_SIZES)).num_parameters()
    assert abs(own / peer - 1) <= 0.02


@pytest.mark.parametrize(("ours", "code"), [(1.7, 0), (1.9, 1)])
def test_each_side_runs_its_best_rate_and_batch_with_every_seed(ours, code, monkeypatch, capsys, tmp_path):
    """By runs that are made up here: the rate and the batch in the middle are the best ones."""
    asked = []

    def made_up(*runs):
        asked.extend(runs)
        sizes = {"seconds": 590.0, "steps": 5, "tokens": 40, "parameters": 100, "without_embedding": 50}
        middle = {"ours": (time_to_quality.OUR_RATES[1], 4), "peer": (time_to_quality.PEER_RATES[1], 4)}
        bpb = {"ours": ours, "peer": 2.0}
        return [{"bpb": bpb[run.side] + ((run.rate, run.batch) != middle[run.side]), **sizes} for run in runs]

    books = tmp_path / "books.jsonl.zst"
    books.write_bytes(b"")
    monkeypatch.setattr(time_to_quality, "write_tokens", lambda books, folder: None)
    monkeypatch.setattr(time_to_quality.Bench, "_run", lambda bench, *runs: made_up(*runs))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    options = [f"--books={books}", f"--work={tmp_path / 'work'}", "--seeds=2", "--json", "--train.compile=off"]
    for _ in range(2):  # the second time everything is there
        monkeypatch.setattr(sys, "argv", ["benchmark", *options])
        with pytest.raises(SystemExit) as ended:
            time_to_quality.main()
        printed = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert ended.value.code == code and all(printed["met"].values()) is (code == 0)
        assert (printed["ours_bpb"], printed["peer_bpb"]) == (ours, 2.0)
        assert [len(printed["sweep"][side]) for side in ("ours", "peer")] == [12, 12]
        assert (printed["batch"], printed["peer_rate"]) == (4, time_to_quality.PEER_RATES[1])
    last = [run for run in asked if run.scored_on == "held_out"]
    assert [(run.side, run.seed) for run in last] == [("ours", 0), ("peer", 0), ("ours", 1), ("peer", 1)]
    assert {run.seed for run in asked if run.scored_on == "tuning"} == {time_to_quality.SWEEP_SEED}
    assert len(asked) == 2 * (12 + 2) and {run.options for run in last} == {("--train.compile=off",), ()}
