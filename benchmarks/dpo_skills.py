"""Claim: DPO on preferences between right answers and slips tells them apart for held-out questions ≥ 90% of the time
(its margin of implicit rewards is on the side of the right one), and the model answers no fewer questions exactly.

The model is what `seedbed quickstart` has fine-tuned in `--minutes`, the settings are those of the preset
dpo/quickstart, and all wrong answers are made up. Held-out questions are in training in no wording; exact answers are
counted over others of them than the pairs are of, greedily, before and after.
Run: python benchmarks/dpo_skills.py --json   (about 12 minutes on 2 cores; --model RUN: 2)
Options of `seedbed dpo` change it.
Ends with exit code 1 when a claim is not met.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

COUNTED = 200
"""Held-out questions of each skill whose exact answers are counted."""


def met(figures: Mapping[str, Any]) -> dict[str, bool]:
    """Which claims the figures meet; a figure that is no number meets none."""
    return {
        "a margin on the right side for 90%": figures["accuracy"] >= 0.9,
        "no fewer exact answers": figures["exact_after"] >= figures["exact_before"],
    }


def exact(model: Path, per_skill: int) -> dict[str, Any]:
    """Shares of exact answers to held-out questions, greedily."""
    from seedbed.data.skills import held_out_items
    from seedbed.evaluation.skills import score_skills
    from seedbed.inference.engine import Engine

    scores = score_skills(Engine.load(model), list(held_out_items(per_skill, seed=0)))
    return {"skills_exact": scores.skills_exact, **scores.by_skill}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model", type=Path, help="left out: quickstart makes one")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--pairs", type=int, default=8000)
    parser.add_argument("--json", action="store_true", help="print only one JSON object")
    arguments, options = parser.parse_known_args()
    from seedbed.alignment.direct.config import DirectConfig
    from seedbed.alignment.direct.dpo import dpo
    from seedbed.configuration import from_arguments
    from seedbed.data.skills import SkillItem, held_out_items, training_items
    from seedbed.quickstart.preferences import preferences
    from seedbed.shards import write_rows

    def slips(items: Iterable[SkillItem], seed: int) -> list[dict[str, str]]:
        asked = list(items)
        return list(preferences(asked, [""] * len(asked), seed=seed))

    with tempfile.TemporaryDirectory() as temporary, contextlib.redirect_stdout(sys.stderr):
        place = Path(temporary)
        model = arguments.model
        if model is None:
            made = [sys.executable, "-m", "seedbed", "quickstart", f"--minutes={arguments.minutes}"]
            subprocess.run([*made, f"--out={place / 'quickstart'}"], check=True, stdout=sys.stderr)
            model = place / "quickstart" / "finetune"
        learned = slips(training_items(arguments.pairs, seed=1), 1)
        held_out = slips(held_out_items(100, seed=2, without=held_out_items(COUNTED, seed=0)), 2)
        write_rows(place / "train.jsonl", learned)
        write_rows(place / "held_out.jsonl", held_out)
        before = exact(model, COUNTED)
        given = [f"--model={model}", f"--data={place / 'train.jsonl'}", f"--validation={place / 'held_out.jsonl'}"]
        given += [
            "--config=dpo/quickstart",
            f"--out={place / 'dpo'}",
            "--train.epochs=1",
            "--train.validation_rows=1000",
            "--train.device=cpu",
        ]
        result = dpo(from_arguments(DirectConfig, [*given, "--useless=drop", *options]))
        after = exact(place / "dpo", COUNTED)
    figures = {
        "accuracy": result["val_accuracy"],
        "margin": result["val_margin"],
        "exact_before": before["skills_exact"],
        "exact_after": after["skills_exact"],
        "by_skill": {skill: [before[skill], after[skill]] for skill in before if skill != "skills_exact"},
        "pairs": len(learned),
        "held_out_pairs": len(held_out),
        "steps": result["steps"],
        "seconds": result["seconds"],
        "machine": f"{platform.machine()} {platform.system()}, Python {platform.python_version()}",
    }
    claims = met(figures)
    print(json.dumps({**figures, "met": claims}))
    sys.exit(not all(claims.values()))


if __name__ == "__main__":
    main()
