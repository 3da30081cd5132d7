"""Claim: of at least 40 programs that attack the sandbox none escapes and each verdict is right, and a run in a box
takes at most 100 ms more than plain `python -I`.

The programs are those of tests/sandbox/attacks.txt. The overhead is that of a program that does nothing, the median of
`--runs` pairs, one after the other; `check_overhead_ms` is that of a program and its tests, which are in two boxes.
Run: python benchmarks/sandbox_attacks.py --json   (half a minute)
Ends with exit code 1 when a claim is not met.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from seedbed.sandbox import check, run, run_many
from seedbed.sandbox.bubblewrap import interpreter
from seedbed.sandbox.kinds import describe
from tests.sandbox.attack_suite import attacks, world


def met(figures: Mapping[str, float]) -> dict[str, bool]:
    """Which claims the figures meet; a figure that is no number meets none."""
    return {
        "at least 40 attacks": figures["programs"] >= 40,
        "none escapes": figures["escaped"] == 0,
        "each verdict is right": figures["wrong"] == 0,
        "at most 100 ms a run": figures["overhead_ms"] <= 100,
    }


def attacked() -> dict[str, Any]:
    """How the attacks ended."""
    escaped, wrong, suite = [], [], attacks()
    with world() as there:
        for attack in suite:
            verdict = there.attack(attack)
            escaped += [attack.name] if there.harm(verdict) else []
            wrong += [] if attack.right(verdict) else [attack.name]
    return {"programs": len(suite), "escaped": len(escaped), "wrong": len(wrong), "names": sorted({*escaped, *wrong})}


def overhead(runs: int) -> dict[str, float]:
    """Milliseconds that a box adds to a program, and programs a second when two are run at a time."""
    ways: dict[str, Callable[[], Any]] = {
        "plain": lambda: subprocess.run([interpreter(), "-I", "-c", "pass"], check=True),
        "overhead": lambda: run("pass"),
        "check_overhead": lambda: check("def f(): return 1", "assert f() == 1"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs + 1):  # the first round finds the sandbox, and is dropped
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - began)
    medians = {name: 1000 * statistics.median(times[1:]) for name, times in seconds.items()}
    began = time.perf_counter()
    run_many(["pass"] * runs, workers=2)
    return {
        "plain_ms": round(medians["plain"], 1),
        "overhead_ms": round(medians["overhead"] - medians["plain"], 1),
        "check_overhead_ms": round(medians["check_overhead"] - medians["plain"], 1),
        "programs_a_second": round(runs / (time.perf_counter() - began), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--json", action="store_true", help="print only one JSON object")
    arguments = parser.parse_args()
    figures = {"sandbox": describe()["kind"], **attacked(), **overhead(arguments.runs)}
    claims = met(figures)
    print(json.dumps({**figures, "met": claims}))
    sys.exit(not all(claims.values()))


if __name__ == "__main__":
    main()
