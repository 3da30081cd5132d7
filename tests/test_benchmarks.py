"""A benchmark judges its own figures: it ends with exit code 1 when a claim is not met."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from types import ModuleType

import pytest
from benchmarks import (
    checkpoint_stall,
    decode,
    dpo_skills,
    grpo_addition,
    grpo_copy,
    loader,
    on_policy,
    people,
    ppo_copy,
    prefill,
    prepare,
    qlora_memory,
    quantization_quality,
    quickstart,
    reward_model,
    sandbox_attacks,
    serving_mix,
    speedrun,
    startup,
    time_to_quality,
    tokenize,
    train_throughput,
)

from seedbed.model.config import ModelConfig

GOOD = {
    quickstart: {
        **{"seconds": 600.0, "peak_rss_mb": 2999.9, "skills_exact": 0.7, "copying": 0.9},
        **{"val_bits_per_byte_first": 8.0, "val_bits_per_byte_last_step": 7.99, "points_lost": 1.0},
    },
    train_throughput: {"ratio": 1.1, "memory_ratio": 0.7, "gemm_fraction": 0.75, "muon_overhead": 0.15},
    speedrun: {
        **{
            "setting": "tinyshakespeare",
            "tokens": 1_536_000,
            "parameters": 900_000,
            "val_loss": 1.56,
            "step_at_1_8857": 400,
        },
        **{"seconds_to_1_8857": 20.0, "baseline_seconds": 100.0, "baseline_val_loss": 1.76},
    },
    time_to_quality: {
        **{"ours_bpb": 1.8, "peer_bpb": 2.0, "parameters": 98, "peer_parameters": 100},
        **{"seconds": 605.0, "budget_seconds": 600.0},
    },
    startup: {"import_seconds": 0.299, "help_seconds": 0.499},
    checkpoint_stall: {"fraction": 0.03},
    serving_mix: {"ratio": 4.0},
    quantization_quality: {"int8_change": -0.005, "int4_change": 0.03, "int8_share": 0.27, "int4_share": 0.16},
    sandbox_attacks: {"programs": 40, "escaped": 0, "wrong": 0, "overhead_ms": 100.0},
    loader: {"tokens_per_s": 20e6},
    reward_model: {"clean": 0.99, "flipped": 0.93},
    grpo_addition: {
        **{"runs": 3, "most_from_40_points": 20, "least_gain_points": 30, "most_seconds": 600.0, "most_growth": 2.0}
    },
    grpo_copy: {"runs": 3, "most_before": 0.3, "least_after": 0.9, "most_seconds": 10.0},
    ppo_copy: {"runs": 3, "most_before": 0.3, "least_after": 0.95, "most_seconds": 20.0},
    dpo_skills: {"accuracy": 0.9, "exact_before": 0.8, "exact_after": 0.8},
    on_policy: {"runs": 3, "own_by_own": 0.8, "own_by_data": 1.0, "right_by_own": 1.0, "right_by_data": 1.0},
    qlora_memory: {"base_share": 0.3, "peak_share": 0.3, "merged_difference": 1e-3},
    people: {
        **{"loss_before": 6.0, "loss_after": 5.99, "longer_is_better": 0.4},
        **{"dpo_accuracy": 0.601, "reward_accuracy": 0.601},
    },
    tokenize: {"mb_per_s_core": 3.0, "identical_ids": True, "train_seconds": 40.0, "train_rss_mb": 1499},
    prepare: {
        **{"mb_per_s_core": 1.5, "scaling_2": 1.8, "ratio_datatrove": 3.0, "rss_ratio": 1.1},
        **{"recall": 0.95, "false_drops": 0.01, "missed": 0},
    },
}
BAD = [
    (quickstart, "within 10 minutes", "seconds", 600.1),
    (quickstart, "under 3 GB", "peak_rss_mb", 3000),
    (quickstart, "validation bits per byte fall", "val_bits_per_byte_last_step", 8.0),
    (quickstart, "at least 70% exact", "skills_exact", 0.699),
    (quickstart, "at least 90% of copying exact", "copying", 0.899),
    (quickstart, "aligning loses at most a point", "points_lost", 1.01),
    (train_throughput, "75% of the GEMM peak", "gemm_fraction", 0.749),
    (train_throughput, "Muon at most 15% of a step more than AdamW", "muon_overhead", 0.151),
    (train_throughput, "at least 1.1 times transformers", "ratio", 1.099),
    (train_throughput, "at most 0.7 of its memory", "memory_ratio", 0.701),
    (speedrun, "at most 0.90M parameters", "parameters", 900_001),
    (speedrun, "no more than 2,000 steps of 768 tokens", "tokens", 1_536_001),
    (speedrun, "a validation loss of at most 1.56", "val_loss", 1.5601),
    (speedrun, "1.8857 within 400 steps", "step_at_1_8857", 401),
    (speedrun, "1.8857 in a fifth of the baseline's time", "seconds_to_1_8857", 20.01),
    (time_to_quality, "at least 10% fewer bits per byte", "ours_bpb", 1.801),
    (time_to_quality, "as many parameters, within 2%", "parameters", 102.1),
    (time_to_quality, "no more than the budget, within 1%", "seconds", 606.1),
    (startup, "import under 0.3 s", "import_seconds", 0.3),
    (startup, "--help under 0.5 s", "help_seconds", 0.5),
    (checkpoint_stall, "at most 3% of training time", "fraction", 0.0301),
    (serving_mix, "4 × transformers in static batches", "ratio", 3.99),
    (quantization_quality, "int8 within 0.5% of the perplexity", "int8_change", 0.0051),
    (quantization_quality, "int4 within 3% of the perplexity", "int4_change", -0.0301),
    (quantization_quality, "int8 in at most 27% of the bytes", "int8_share", 0.2701),
    (quantization_quality, "int4 in at most 16% of the bytes", "int4_share", 0.1601),
    (sandbox_attacks, "at least 40 attacks", "programs", 39),
    (sandbox_attacks, "none escapes", "escaped", 1),
    (sandbox_attacks, "each verdict is right", "wrong", 1),
    (sandbox_attacks, "at most 100 ms a run", "overhead_ms", 100.1),
    (loader, "at least 20 M tokens/s", "tokens_per_s", 19.9e6),
    (reward_model, "at least 99% right", "clean", 0.9899),
    (grpo_addition, "3 seeds", "runs", 2),
    (grpo_addition, "begins at 20 to 60%", "most_from_40_points", 20.1),
    (grpo_addition, "at least 30 points more", "least_gain_points", 29.9),
    (grpo_addition, "within 10 minutes", "most_seconds", 600.1),
    (grpo_addition, "at most twice as long", "most_growth", 2.01),
    (grpo_copy, "3 seeds", "runs", 2),
    (grpo_copy, "begins at no more than 30%", "most_before", 0.301),
    (grpo_copy, "at least 90% right", "least_after", 0.8999),
    (grpo_copy, "within 10 seconds", "most_seconds", 10.1),
    (ppo_copy, "3 seeds", "runs", 2),
    (ppo_copy, "begins at no more than 30%", "most_before", 0.301),
    (ppo_copy, "at least 95% right", "least_after", 0.9499),
    (ppo_copy, "within 20 seconds", "most_seconds", 20.1),
    (reward_model, "at least 93% right from flipped labels", "flipped", 0.9299),
    (dpo_skills, "a margin on the right side for 90%", "accuracy", 0.8999),
    (dpo_skills, "no fewer exact answers", "exact_after", 0.7999),
    (on_policy, "3 seeds", "runs", 2),
    (on_policy, "20% less over its own answers", "own_by_own", 0.801),
    (on_policy, "no more over the right ones", "right_by_own", 1.001),
    (qlora_memory, "the base in at most 30% of fp32", "base_share", 0.301),
    (qlora_memory, "at most 30% at the peak of a step", "peak_share", 0.301),
    (qlora_memory, "merged as worn", "merged_difference", 1.01e-3),
    (people, "fine-tuning lowers the held-out loss", "loss_after", 6.0),
    (people, "DPO tells more than lengths do", "dpo_accuracy", 0.6),
    (people, "a reward model tells more than lengths do", "reward_accuracy", 0.6),
    (tokenize, "at least 3 MB/s a core", "mb_per_s_core", 2.99),
    (tokenize, "the ids of tokenizers", "identical_ids", False),
    (tokenize, "16k vocabulary within 40 s", "train_seconds", 40.1),
    (tokenize, "16k vocabulary under 1.5 GB", "train_rss_mb", 1500),
    (prepare, "at least 1.5 MB/s a core", "mb_per_s_core", 1.49),
    (prepare, "2 workers at least 1.8 times as fast", "scaling_2", 1.79),
    (prepare, "at least 3 times datatrove", "ratio_datatrove", 2.99),
    (prepare, "the same memory for ten times the text", "rss_ratio", 1.101),
    (prepare, "95% of near-duplicates found", "recall", 0.949),
    (prepare, "at most 1% dropped falsely", "false_drops", 0.011),
    (prepare, "everything else that was planted found", "missed", 1),
]


@pytest.mark.parametrize("benchmark", GOOD)
def test_figures_just_within_the_claims_meet_them_all(benchmark):
    claims = benchmark.met(GOOD[benchmark])
    assert all(claims.values()) and list(claims) == [claim for owner, claim, *_ in BAD if owner is benchmark]


@pytest.mark.parametrize(("benchmark", "claim", "figure", "value"), BAD)
def test_a_figure_just_outside_misses_its_claim_and_no_other(benchmark, claim, figure, value):
    for bad in (value, math.nan):
        claims = benchmark.met(GOOD[benchmark] | {figure: bad})
        assert [name for name, holds in claims.items() if not holds] == [claim]


DECODED = {"ours_int8": 20.0, "ours_fp32": 9.0, "transformers": 4.0, "llama_cpp_q8": 6.0, "llama_cpp_f32": 9.0}
WORSE = [
    ("batch_1", {"llama_cpp_q8": 20.1}, "int8 at batch 1: 1 × llama_cpp_q8"),
    ("batch_8", {"transformers": 5.01}, "int8 at batch 8: 4 × transformers"),
    ("batch_8", {"llama_cpp_q8": 11.2}, "int8 at batch 8: 1.8 × llama_cpp_q8"),
    ("batch_32", {"llama_cpp_q8": 6.7}, "int8 at batch 32: 3 × llama_cpp_q8"),
    ("batch_32", {"transformers": 4.01}, "int8 at batch 32: 5 × transformers"),
    ("batch_32", {"ours_fp32": 8.9}, "fp32 at batch 32: 1 × llama_cpp_f32"),
    ("batch_32", {"ours_fp32": math.nan}, "fp32 at batch 32: 1 × llama_cpp_f32"),
]


@pytest.mark.parametrize(("batch", "worse", "claim"), WORSE)
def test_decoding_is_judged_at_each_batch_against_each_peer(batch, worse, claim):
    good = {f"batch_{size}": DECODED for size in (1, 8, 32)}
    assert all(decode.met(good).values()) and len(decode.met(good)) == 9
    claims = decode.met(good | {batch: DECODED | worse})
    assert [name for name, holds in claims.items() if not holds] == [claim]
    without = decode.met({size: each | {"llama_cpp_q8": None, "llama_cpp_f32": None} for size, each in good.items()})
    assert list(without) == [
        f"int8 at batch {size}: {times} × transformers" for size, times in ((1, 4), (8, 4), (32, 5))
    ]


def test_reading_a_prompt_is_judged_at_512_tokens():
    for ours, holds in ((2000.0, True), (1999.0, False), (math.nan, False)):
        claims = prefill.met({"tokens_512": {"ours_int8": ours, "llama_cpp_q8": 1000.0}})
        assert list(claims.values()) == [holds]
    assert prefill.met({"tokens_512": {"ours_int8": 1.0, "llama_cpp_q8": None}}) == {}


def test_a_peer_that_is_not_there_is_not_judged():
    assert serving_mix.met({"ratio": None}) == {}
    claims = prepare.met(GOOD[prepare] | {"ratio_datatrove": None})
    assert all(claims.values()) and len(claims) == len(prepare.met(GOOD[prepare])) - 1
    claims = train_throughput.met(GOOD[train_throughput] | {"ratio": None, "memory_ratio": None})
    assert all(claims.values()) and len(claims) == 2


def test_a_speedrun_is_held_to_what_its_setting_claims():
    figures = GOOD[speedrun]
    assert len(speedrun.met(figures | {"baseline_seconds": None})) == 4
    assert list(speedrun.met(figures | {"setting": "tuning", "val_loss": 9.0})) == [
        "at most 0.90M parameters",
        "no more than 2,000 steps of 768 tokens",
    ]
    never = speedrun.met(figures | {"step_at_1_8857": None, "seconds_to_1_8857": None})
    assert [claim for claim, holds in never.items() if not holds] == list(never)[3:]
    other = {"setting": "another text", "val_loss": 2.0, "baseline_val_loss": 2.2, "step_at_1_8857": None}
    assert speedrun.met(figures | other | {"baseline_val_loss": 2.21})["at least 0.2 nats better than the baseline"]
    assert not speedrun.met(figures | other | {"baseline_val_loss": 2.19})["at least 0.2 nats better than the baseline"]


def run(monkeypatch, capsys, benchmark: ModuleType, *arguments: str) -> tuple[int, dict[str, object]]:
    """Its exit code and the last line that it prints."""
    monkeypatch.setattr(sys, "argv", ["benchmark", "--json", *arguments])
    with pytest.raises(SystemExit) as ended:
        benchmark.main()
    return int(ended.value.code), json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize(("claims", "code"), [({"a": True, "b": True}, 0), ({"a": True, "b": False}, 1)])
def test_a_claim_that_is_not_met_is_the_exit_code_after_the_json_line(claims, code, monkeypatch, capsys):
    monkeypatch.setattr(startup, "met", lambda figures: claims)
    monkeypatch.setattr(startup, "COMMANDS", {"python": ["-c", "pass"]})
    ended, printed = run(monkeypatch, capsys, startup, "--runs=1")
    assert ended == code and printed["met"] == claims and printed["python_seconds"] > 0


@pytest.mark.parametrize(("holds", "code"), [(True, 0), (False, 1)])
def test_the_loader_is_timed_with_every_kind_of_source(holds, code, monkeypatch, capsys):
    monkeypatch.setattr(loader, "met", lambda figures: {"fast": holds and figures["tokens_per_s"] > 0})
    monkeypatch.setattr(loader, "BATCHES", 2)
    ended, printed = run(monkeypatch, capsys, loader, "--runs=1", "--tokens=200000")
    assert ended == code and printed.pop("met") == {"fast": holds}
    assert list(printed) == [f"{kind}tokens_per_s" for kind in ("", "isolate_", "best_fit_", "mixture_")]


def test_a_speedrun_tells_each_seed_and_their_mean(monkeypatch, capsys, tmp_path):
    text = tmp_path / "counting.txt"
    text.write_text(", ".join(str(number) for number in range(3000)), encoding="utf-8")
    monkeypatch.setattr(speedrun, "TARGET", 2.5)
    short = ["--train.steps=40", "--model.width=32", "--model.layers=1", "--train.batch=4"]
    ended, printed = run(monkeypatch, capsys, speedrun, "--seeds=2", f"--text={text}", *short)
    assert ended == int(not all(printed["met"].values())) and printed["ids"] == 12 + 7
    for kind in ("seeds", "baseline_seeds"):
        assert [figures["seed"] for figures in printed[kind]] == [0, 1]
    for key in ("val_loss", "step_at_1_8857", "seconds_to_1_8857"):
        assert printed[key] == pytest.approx(sum(figures[key] for figures in printed["seeds"]) / 2, abs=1e-3)
    assert all(figures["seconds_to_1_8857"] <= figures["seconds"] for figures in printed["seeds"])


@pytest.mark.parametrize(("copying", "code"), [(0.95, 0), (0.5, 1)])
def test_the_quickstart_is_judged_by_what_it_wrote(copying, code, monkeypatch, capsys, tmp_path):
    """By the files of a run, made up here."""
    out = tmp_path / "out"

    def write(command: list[str], **settings: object) -> subprocess.CompletedProcess[str]:
        (out / "pretrain").mkdir(parents=True)
        first, last = ({"step": step, "val_bits_per_byte": value} for step, value in ((0, 8.0), (9, 2.0)))
        (out / "pretrain" / "metrics.jsonl").write_text(f"{json.dumps(first)}\n{json.dumps(last)}\n")
        tuned = {"val_bits_per_byte": 9.0, "skills_exact": 0.8, "by_skill": {"copying": copying}}
        raw = {"stage": "pretrain", "val_bits_per_byte": 2.0, "skills_exact": 0.0, "by_skill": {"copying": 0.0}}
        stages = [raw, *({"stage": stage, **tuned} for stage in ("finetune", "dpo", "grpo"))]
        result = {"stages": stages, "baseline": {"skills_exact": 0.1}}
        (out / "result.json").write_text(json.dumps(result))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", write)
    ended, printed = run(monkeypatch, capsys, quickstart, f"--out={out}")
    assert ended == code and printed["met"]["at least 90% of copying exact"] is (code == 0)
    assert printed["copying"] == copying and printed["val_bits_per_byte_first"] == 8.0


def test_each_step_that_is_timed_is_a_step(tmp_path, monkeypatch):
    sizes = {"vocab_size": 64, "layers": 1, "width": 16, "heads": 2, "ff_width": 32, "context": 8}
    trainer, step = train_throughput.our_step(sizes, 2, "adamw", tmp_path)
    assert train_throughput.timed(step, 2) > 0
    assert trainer.progress.step == train_throughput.WARM + 2 and trainer.progress.units == 4 * 2 * 8
    monkeypatch.setattr(train_throughput, "SIZES", sizes)
    monkeypatch.setattr(train_throughput, "SMALL", sizes)
    kinds = {"turns": "ratio", "ours": "peak_mb", "full": "peak_mb", "peer": "peak_mb", "small": "gemm_fraction"}
    for what, figure in (kinds | {"muon": "optimizer", "adamw": "optimizer"}).items():
        figures = train_throughput.measure(what, 1)
        assert all(value > 0 for value in figures.values()) and figure in figures


def test_a_ratio_is_that_of_neighbours(monkeypatch):
    """A machine that gets twice as slow at every step does so to both."""
    clock, steps = [0.0], itertools.count()
    monkeypatch.setattr(train_throughput.time, "perf_counter", lambda: clock[0])

    def step(seconds):
        clock[0] += seconds * 2 ** (next(steps) // 2)

    figures = train_throughput.in_turns(lambda: step(1.0), lambda: step(3.0), 5)
    assert figures == {"ratio": 3.0, "ours_seconds": 16.0, "peer_seconds": 48.0}


@pytest.mark.parametrize(("holds", "code"), [(True, 0), (False, 1)])
def test_the_stall_of_a_checkpoint_is_the_time_that_saves_add(holds, code, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint_stall, "met", lambda figures: {"short": holds and figures["step_seconds"] >= 0})
    small = ModelConfig(vocab_size=32, layers=1, width=16, heads=2, ff_width=32, context=8)
    monkeypatch.setattr(checkpoint_stall, "MODEL", small)
    ended, printed = run(monkeypatch, capsys, checkpoint_stall, "--runs=1", "--seconds=0.1", "--length=8")
    assert ended == code and printed.pop("met") == {"short": holds}
    assert printed["fraction"] == pytest.approx(printed["stall_seconds"] / 60, abs=1e-3)
