"""Claim: `import seedbed` takes under 0.3 s and `seedbed --help` under 0.5 s: torch comes when a model does.

Run: python benchmarks/startup.py --json
Ends with exit code 1 when a claim is not met.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping

COMMANDS = {
    "python": ["-c", "pass"],
    "import": ["-c", "import seedbed"],
    "help": ["-m", "seedbed", "--help"],
    "pretrain_help": ["-m", "seedbed", "pretrain", "--help"],
}


def met(figures: Mapping[str, float]) -> dict[str, bool]:
    """Which claims the figures meet; a figure that is no number meets none."""
    return {
        "import under 0.3 s": figures["import_seconds"] < 0.3,
        "--help under 0.5 s": figures["help_seconds"] < 0.5,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print only one JSON object")
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(arguments.runs + 1):  # the first round warms the file cache and is dropped
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - began)
    figures = {f"{name}_seconds": round(statistics.median(times[1:]), 3) for name, times in seconds.items()}
    claims = met(figures)
    print(json.dumps({**figures, "met": claims}))
    sys.exit(not all(claims.values()))


if __name__ == "__main__":
    main()
