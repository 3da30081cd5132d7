"""Claim: one command goes from raw text to an aligned chat model within 10 minutes on 2 CPU cores and under 3 GB. The
model answers ≥ 70% of held-out questions exactly, ≥ 90% of those that ask it to copy, and at most a point less than
before it was aligned.

Peers: none goes the whole way; the baseline beside it is the best constant answer of each skill.
Run: python benchmarks/quickstart.py --json   (add --corpus FILE --minutes 8 for another text)
Ends with exit code 1 when a claim is not met.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def met(figures: Mapping[str, Any]) -> dict[str, bool]:
    """Which claims the figures of a run meet; a figure that is no number meets none."""
    return {
        "within 10 minutes": figures["seconds"] <= 600,
        "under 3 GB": figures["peak_rss_mb"] < 3000,
        "validation bits per byte fall": figures["val_bits_per_byte_last_step"] < figures["val_bits_per_byte_first"],
        "at least 70% exact": figures["skills_exact"] >= 0.7,
        "at least 90% of copying exact": figures["copying"] >= 0.9,
        "aligning loses at most a point": figures["points_lost"] <= 1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="stdlib")
    parser.add_argument("--minutes", type=float, help="left out: the default of the command")
    parser.add_argument("--out", type=Path, help="left out: a temporary folder")
    parser.add_argument("--json", action="store_true", help="print only one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.out is not None and arguments.out.exists():
            parser.error(f"{arguments.out} exists: what is there already would not be timed")
        out = arguments.out or Path(temporary) / "quickstart"
        command = [sys.executable, "-m", "seedbed", "quickstart", f"--corpus={arguments.corpus}", f"--out={out}"]
        command += [] if arguments.minutes is None else [f"--minutes={arguments.minutes}"]
        began = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.DEVNULL if arguments.json else None)
        if done.returncode:  # it has said why
            sys.exit(done.returncode)
        seconds = time.perf_counter() - began
        result = json.loads((out / "result.json").read_text(encoding="utf-8"))
        curve = [json.loads(line) for line in (out / "pretrain" / "metrics.jsonl").read_text().splitlines()]
    validation = [record["val_bits_per_byte"] for record in curve if "val_bits_per_byte" in record]
    stages = {stage["stage"]: stage for stage in result["stages"]}
    last = result["stages"][-1]
    figures = {
        "seconds": round(seconds, 1),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6, 1),
        "val_bits_per_byte": stages["pretrain"]["val_bits_per_byte"],
        "val_bits_per_byte_at_the_end": last["val_bits_per_byte"],
        "val_bits_per_byte_last_step": validation[-1],
        "val_bits_per_byte_first": validation[0],
        "pretrained_exact": stages["pretrain"]["skills_exact"],
        "finetuned_exact": stages["finetune"]["skills_exact"],
        "dpo_exact": stages["dpo"]["skills_exact"],
        "points_lost": round(100 * (stages["finetune"]["skills_exact"] - last["skills_exact"]), 2),
        "skills_exact": last["skills_exact"],
        "second_turn_exact": last.get("second_turn_exact"),
        "copying": last["by_skill"]["copying"],
        "by_skill": {skill: [stage["by_skill"][skill] for stage in stages.values()] for skill in last["by_skill"]},
        "baseline_exact": result["baseline"]["skills_exact"],
        "machine": f"{platform.machine()} {platform.system()}, Python {platform.python_version()}",
    }
    claims = met(figures)
    print(json.dumps({**figures, "met": claims}))
    sys.exit(not all(claims.values()))


if __name__ == "__main__":
    main()
