"""Claim: DPO on preferences between right answers and slips tells them apart for held-out questions ≥ 90% of the time
(its margin of implicit rewards is on the side of the right one), and the model answers no fewer questions exactly.

The model is what `seedbed quickstart` makes in `--minutes`. Held-out questions are in training in no wording; exact
answers are counted over others of them than the pairs are of, greedily, before and after.
Run: python benchmarks/dpo_skills.py --json   (about 12 minutes on 2 cores; --model RUN: 4)
Ends with exit code 1 when a claim is not met.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import random
import string
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seedbed.data.skills import SkillItem

LIKELIHOOD = 8.0
"""Of the right answer, beside DPO's loss: without it, both answers become rarer."""

RATE = 3e-4
"""Of AdamW, for a model of a few million parameters."""


def met(figures: Mapping[str, Any]) -> dict[str, bool]:
    """Which claims the figures meet; a figure that is no number meets none."""
    return {
        "a margin on the right side for 90%": figures["accuracy"] >= 0.9,
        "no fewer exact answers": figures["exact_after"] >= figures["exact_before"],
    }


def preferences(items: Sequence[SkillItem], seed: str) -> list[dict[str, str]]:
    """The right answer to each item, and one with a slip: another letter, two of them the wrong way round, one too few
    or too many, a number near the right one."""
    draw = random.Random(f"slips {seed}")
    rows = []
    for item in items:
        wrong = item.answer
        while wrong == item.answer:
            wrong = slip(item.answer, draw)
        rows.append({"prompt": item.prompt, "chosen": item.answer, "rejected": wrong})
    return rows


def slip(answer: str, draw: random.Random) -> str:
    if answer.isdecimal():
        return str(max(0, int(answer) + draw.choice([-10, -2, -1, 1, 2, 10])))
    letters, place = list(answer), draw.randrange(len(answer))
    kind = draw.choice(["other", "swapped", "missing", "twice"])
    if kind == "other" and letters[place] != " ":
        letters[place] = draw.choice("0123456789" if letters[place].isdecimal() else string.ascii_lowercase)
    elif kind == "swapped":
        letters[place - 1], letters[place] = letters[place], letters[place - 1]
    elif kind == "missing" and len(letters) > 1:
        del letters[place]
    elif kind == "twice":
        letters.insert(place, letters[place])
    return " ".join("".join(letters).split())


def exact(model: Path, per_skill: int) -> dict[str, Any]:
    """Shares of exact answers to held-out questions, greedily."""
    from seedbed.data.skills import held_out_items
    from seedbed.evaluation.skills import score_skills
    from seedbed.inference.engine import Engine

    scores = score_skills(Engine.load(model), list(held_out_items(per_skill, seed=0)))
    return {"skills_exact": scores.skills_exact, **scores.by_skill}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="left out: quickstart makes one")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--pairs", type=int, default=8000)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--json", action="store_true", help="print only one JSON object")
    arguments = parser.parse_args()
    from seedbed.alignment.direct import dpo
    from seedbed.alignment.direct_config import DirectConfig
    from seedbed.configuration import from_arguments
    from seedbed.data.skills import held_out_items, training_items
    from seedbed.shards import write_rows

    with tempfile.TemporaryDirectory() as temporary, contextlib.redirect_stdout(sys.stderr):
        place = Path(temporary)
        model = arguments.model
        if model is None:
            made = [sys.executable, "-m", "seedbed", "quickstart", f"--minutes={arguments.minutes}"]
            subprocess.run([*made, f"--out={place / 'quickstart'}"], check=True, stdout=sys.stderr)
            model = place / "quickstart" / "finetune"
        learned = preferences(list(training_items(arguments.pairs, seed=1)), "training")
        held_out = preferences(list(held_out_items(50, seed=2)), "held out")
        write_rows(place / "train.jsonl", learned)
        write_rows(place / "held_out.jsonl", held_out)
        before = exact(model, 200)
        given = [f"--model={model}", f"--data={place / 'train.jsonl'}", f"--validation={place / 'held_out.jsonl'}"]
        given += [f"--out={place / 'dpo'}", "--train.epochs=1", "--train.batch=16", "--length=128"]
        given += [
            f"--optimizer.rate={arguments.rate}",
            f"--likelihood={LIKELIHOOD}",
            "--train.validation_rows=1000",
            "--train.device=cpu",
        ]
        result = dpo(from_arguments(DirectConfig, [*given, "--useless=drop", "--train.compile=off"]))
        after = exact(place / "dpo", 200)
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
