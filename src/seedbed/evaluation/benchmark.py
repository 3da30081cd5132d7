"""`seedbed benchmark`: how fast a model answers, by batch sizes and lengths, and what it takes.

Each case is a number of requests that come at once, with prompts drawn at random, so that no beginning is shared, and
answers of a given length. All cases are measured in turns, round after round: what changes on the machine meets all.
"""

from __future__ import annotations

import itertools
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from seedbed import __version__
from seedbed.configuration import to_dict
from seedbed.devices import (
    EnergyCounter,
    describe_cpu,
    describe_memory,
    describe_torch,
    device_memory_mb,
    peak_memory_mb,
    synchronise,
)
from seedbed.errors import ConfigError
from seedbed.evaluation.config import BenchmarkConfig
from seedbed.inference.config import SamplingConfig
from seedbed.inference.engine import Engine
from seedbed.inference.generation import Generation
from seedbed.inference.opening import open_engine
from seedbed.model.accounting import count_parameters
from seedbed.model.cache import BLOCK
from seedbed.model.folder import find_model
from seedbed.model.linears.layers import storages
from seedbed.model.linears.storage import describe
from seedbed.progress import progress
from seedbed.runs import new_folder, words, write_result
from seedbed.visual.curves import line_chart
from seedbed.visual.page import Page, Paragraph, Picture, Table

COLUMNS = {
    "first_ms": "first, ms",
    "between_ms": "between, ms",
    "latency_ms": "whole, ms",
    "prefill_tokens_per_s": "prefill/s",
    "decode_tokens_per_s": "decoding/s",
    "joules_per_token": "J a token",
    "cache_mb": "cache, MB",
    "tokens_per_s": "tokens/s",
}
"""What is told of a case, and its heading: milliseconds to the first token of a row, between two of them, to the last;
tokens a second of prompts until all rows have their first, of answers from then on, of answers over all."""
SIZES = ("batch", "prompt_tokens", "output_tokens")


@dataclass(frozen=True)
class Case:
    """Requests at once, and their lengths."""

    batch: int
    prompt_tokens: int
    output_tokens: int


def benchmark(config: BenchmarkConfig) -> dict[str, Any]:
    """Measures, prints a table, and writes result.json, and a README with the table and a picture, below `out`.

    Returns the numbers: of each case the median of the repeats, the least and the most.
    """
    if config.out is None:
        result = measure(config)
    else:
        settings = {key: value for key, value in to_dict(config).items() if key not in ("model", "out")}
        inputs = {"model": find_model(config.model)}
        with new_folder(config.out, "benchmark", inputs=inputs, config=settings) as staging:
            result = measure(config)
            page(result).write(staging, "README")
            write_result(staging, result)
    print("\n".join([*about(result), "", *lines(result)]))
    return result


def measure(config: BenchmarkConfig) -> dict[str, Any]:
    """The numbers of all cases, and of the machine."""
    lengths = itertools.product(config.prompt_tokens, config.output_tokens, config.batch)
    cases = list(dict.fromkeys(Case(batch, prompt, output) for prompt, output, batch in lengths))
    blocks = max(case.batch * -(-(case.prompt_tokens + case.output_tokens) // BLOCK) for case in cases)
    engine, adapter = open_engine(config, rows=max(config.batch), cache_tokens=blocks * BLOCK)
    longest, context = max(config.prompt_tokens) + max(config.output_tokens), engine.model.config.context
    if longest > context:
        raise ConfigError(f"a prompt and its answer are {longest:,} tokens, the model's context is {context:,}")
    chance, energy = np.random.default_rng(config.seed), EnergyCounter()
    found: dict[Case, list[dict[str, float | None]]] = {case: [] for case in cases}
    rounds = config.warm_up + config.repeats
    with progress("benchmark", len(cases) * rounds, "measurements") as done:
        for round_, case in itertools.product(range(rounds), cases):
            measured = answer(engine, case, chance, energy.read, adapter)
            if round_ >= config.warm_up:
                found[case].append(measured)
            done(1)
    return {
        "model": str(config.model),
        "parameters": count_parameters(engine.model.config).total,
        "weights": describe(stored) if (stored := storages(engine.model)) else config.weights,
        "cache": str(engine.cache.keys_LMGPKI.dtype).removeprefix("torch."),
        "device": str(engine.device),
        "repeats": config.repeats,
        "exact": engine.inexact is None,
        "cases": [asdict(case) | _summary(measured) for case, measured in found.items()],
        "weights_mb": _bytes(itertools.chain(engine.model.parameters(), engine.model.buffers())) / 1e6,
        "peak_rss_mb": peak_memory_mb(),
        **device_memory_mb(engine.device),
        "energy": "RAPL, whole processors" if energy.read() is not None else "unknown: this machine does not tell",
        "machine": {"cpu": describe_cpu(), "memory": describe_memory(), "system": platform.platform()},
        "versions": {"seedbed": __version__, "python": platform.python_version(), "torch": describe_torch()},
    }


def answer(
    engine: Engine,
    case: Case,
    chance: np.random.Generator,
    joules: Callable[[], float | None],
    adapter: str | None = None,
) -> dict[str, float | None]:
    """The numbers of one measurement of a case."""
    shape = (case.batch, case.prompt_tokens)
    prompts = chance.integers(engine.vocabulary, size=shape).tolist()
    sampling = SamplingConfig(max_tokens=case.output_tokens, min_tokens=case.output_tokens, temperature=0)
    synchronise(engine.device)
    before, began = joules(), time.perf_counter()
    under_way = [engine.submit(ids, sampling, adapter=adapter) for ids in prompts]
    first: dict[Generation, float] = {}
    last: dict[Generation, float] = {}
    blocks, held, told = engine.scheduler.blocks, 0, 0
    cache = engine.cache
    block_bytes = _bytes(x for x in vars(cache).values() if isinstance(x, Tensor)) / cache.keys_LMGPKI.shape[1]
    while under_way:
        engine.step()
        synchronise(engine.device)
        now = time.perf_counter()
        held = max(held, blocks.count - blocks.available)
        for generation in under_way:
            if generation.error is not None:
                raise generation.error
            if generation.made:
                first.setdefault(generation, now)
            if generation.reason is not None:
                last[generation] = now
        if not told and len(first) == case.batch:  # of now on all decode
            told = sum(len(generation.made) for generation in first)
        under_way = [generation for generation in under_way if generation.reason is None]
    after, read, ended = joules(), max(first.values()), max(last.values())
    assert all(len(generation.made) == case.output_tokens for generation in last)
    tokens = case.batch * case.output_tokens
    steps = case.output_tokens - 1
    return {
        "first_ms": 1e3 * (statistics.median(first.values()) - began),
        "between_ms": 1e3 * statistics.median((last[each] - first[each]) / steps for each in last) if steps else None,
        "latency_ms": 1e3 * (statistics.median(last.values()) - began),
        "prefill_tokens_per_s": case.batch * case.prompt_tokens / (read - began),
        "decode_tokens_per_s": (tokens - told) / (ended - read) if steps else None,
        "tokens_per_s": tokens / (ended - began),
        "joules_per_token": None if before is None or after is None else (after - before) / tokens,
        "cache_mb": held * block_bytes / 1e6 or None,  # of answers of one token none is held after a step
    }


def _summary(measured: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    """Of each number the median of the repeats, the least and the most; None where there is none."""
    told: dict[str, Any] = {}
    for name in COLUMNS:
        numbers = [number for each in measured if (number := each[name]) is not None]
        spread = (
            {"median": statistics.median(numbers), "least": min(numbers), "most": max(numbers)} if numbers else None
        )
        told[name] = spread
    return told


def _bytes(parts: Iterable[Tensor]) -> int:
    """Bytes that tensors take; one that several share counts once."""
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in parts}.values())


# For people ----------------------------------------------------------------------------------------------------------


def table(result: Mapping[str, Any]) -> Table:
    """A line for each case: medians, and how far at most a repeat was from its tokens a second."""
    told = [name for name in COLUMNS if any(case[name] is not None for case in result["cases"])]
    header = [*(name.replace("_", " ") for name in SIZES), *(COLUMNS[name] for name in told), "±"]
    rows = []
    for case in result["cases"]:
        medians = ["" if case[name] is None else words.value(case[name]["median"]) for name in told]
        rows.append([*(f"{case[size]:,}" for size in SIZES), *medians, f"{_away(case['tokens_per_s']):.0%}"])
    return Table(header, rows)


def _away(spread: Mapping[str, float]) -> float:
    """How far at most one was from the median, as a part of it."""
    return max(spread["most"] - spread["median"], spread["median"] - spread["least"]) / spread["median"]


def lines(result: Mapping[str, Any]) -> list[str]:
    """The table for a terminal."""
    shown = table(result)
    rows = [shown.header, *shown.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def about(result: Mapping[str, Any]) -> list[str]:
    """What was measured, where, and what it took."""
    machine, torch = result["machine"], result["versions"]["torch"]
    bits = "the same alone and in company" if result["exact"] else "nearly the same alone and in company"
    return [
        f"{result['model']}: {result['parameters']:,} parameters, weights {result['weights']}, keys and values "
        f"{result['cache']}, answers {bits}.",
        f"{machine['cpu']['name']}, {machine['cpu']['cores']} cores, {torch['threads']} threads, on {result['device']};"
        f" seedbed {result['versions']['seedbed']}, torch {torch['version']}, Python {result['versions']['python']}.",
        f"Weights {result['weights_mb']:,.1f} MB, the process at most {result['peak_rss_mb']:,.0f} MB."
        f" Energy: {result['energy']}.",
        f"Medians of {result['repeats']}; ± is how far at most one of them was from its tokens a second.",
    ]


def page(result: Mapping[str, Any]) -> Page:
    """Table and picture."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for case in result["cases"]:
        name = f"{case['prompt_tokens']:,} tokens in, {case['output_tokens']:,} out"
        curves.setdefault(name, []).append((case["batch"], case["tokens_per_s"]["median"]))
    labels = {"title": "Throughput", "x_label": "requests at once", "y_label": "tokens a second"}
    picture = Picture("throughput", line_chart(curves, **labels), "Tokens a second over requests at once")
    return Page("How fast it answers", [*map(Paragraph, about(result)), table(result), picture])
