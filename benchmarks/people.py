"""Claim: what people have written teaches a model that has read books alone: fine-tuning lowers the loss of held-out
answers, and DPO and a reward model tell the better of two held-out answers more often than their lengths do.

A model of the preset pretrain/books reads books for `--steps` steps of 2,048 tokens. Of 1,100 instructions and 1,100
preferences, which have the same prompts, those of every tenth prompt (by hash) are held out of all that is learned, so
that no answer to them was ever seen. It is fine-tuned on the instructions, and from there learns the preferences by
DPO, and in a run of its own to score them. Budgets and rates were set beforehand: three epochs of
instructions and one of preferences, at the defaults and at what docs/alignment.md names for models of that size; no
step is chosen by the held-out rows.
Run: python benchmarks/people.py --data DIR --json   (about 6 minutes on 2 cores). DIR holds books.jsonl.zst,
instructions.json and preferences.json, as in the texts of "Build a Large Language Model (From Scratch)".
Ends with exit code 1 when a claim is not met.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HELD_OUT = 10
"""Of so many prompts one is held out."""

Row = Mapping[str, str]


def met(figures: Mapping[str, Any]) -> dict[str, bool]:
    """Which claims the figures meet; a figure that is no number meets none."""
    lengths = max(figures["longer_is_better"], 1 - figures["longer_is_better"])
    return {
        "fine-tuning lowers the held-out loss": figures["loss_after"] < figures["loss_before"],
        "DPO tells more than lengths do": figures["dpo_accuracy"] > lengths,
        "a reward model tells more than lengths do": figures["reward_accuracy"] > lengths,
    }


def is_held_out(row: Row) -> bool:
    """Whether its prompt is."""
    prompt = json.dumps([row["instruction"], row["input"]])
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big") % HELD_OUT == 0


def parted(source: Path, place: Path) -> tuple[Path, Path]:
    """The files of what is learned from and of what is held out."""
    rows: list[Row] = json.loads(source.read_text(encoding="utf-8"))
    files = place / f"{source.stem}.json", place / f"{source.stem}.held_out.json"
    for file, some in zip(files, (False, True), strict=True):
        file.write_text(json.dumps([row for row in rows if is_held_out(row) == some]), encoding="utf-8")
    return files


def longer_is_better(preferences: Sequence[Row]) -> float:
    """Share of those whose better answer is the longer one, in characters; of two as long as each other, a half."""
    lengths = [len(row["chosen"]) - len(row["rejected"]) for row in preferences]
    return sum((length > 0) + (length == 0) / 2 for length in lengths) / len(lengths)


def seedbed(command: str, *arguments: str) -> dict[str, Any]:
    """What a command finds."""
    done = subprocess.run(
        [sys.executable, "-m", "seedbed", command, *arguments, "--json"], check=True, stdout=subprocess.PIPE, text=True
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def first(run: Path, key: str) -> float:
    """Of the records of a run, as it began."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return float(next(line[key] for line in lines if key in line))


def learn(data: Path, place: Path, steps: int) -> dict[str, Any]:
    """The figures."""
    corpus, tokenizer, tokens = (f"{place / name}" for name in ("corpus", "tokenizer", "tokens"))
    seedbed("prepare", f"--source={data / 'books.jsonl.zst'}", f"--out={corpus}", "--max_bytes=12000000")
    seedbed("tokenizer", f"--corpus={corpus}", f"--out={tokenizer}", "--vocab_size=8192")
    seedbed("tokenize", f"--corpus={corpus}", f"--tokenizer={tokenizer}", f"--out={tokens}")
    books, tuned, preferred, scored = (place / name for name in ("books", "tuned", "preferred", "scored"))
    device = ("--train.device=cpu",)
    pretrained = seedbed(
        *("pretrain", "--config=pretrain/books", f"--data.tokens={tokens}", f"--out={books}"),
        *(f"--train.steps={steps}", *device),
    )
    answers, held_out_answers = parted(data / "instructions.json", place)
    pairs, held_out_pairs = parted(data / "preferences.json", place)
    common = ("--overlong=truncate", "--train.validation_rows=1000", *device)
    instructed = seedbed(
        *("finetune", f"--model={books}", f"--data={answers}", f"--validation={held_out_answers}", f"--out={tuned}"),
        *("--template=alpaca", "--train.epochs=3", *common),
    )
    judged = (f"--model={tuned}", f"--data={pairs}", f"--validation={held_out_pairs}", "--train.epochs=1")
    judged += ("--useless=drop", *common)
    dpo = seedbed("dpo", *judged, f"--out={preferred}", "--optimizer.rate=1e-4")
    reward = seedbed("reward", *judged, f"--out={scored}", "--optimizer.rate=1e-3")
    return {
        "bits_per_byte": pretrained["val_bits_per_byte"],
        "loss_before": first(tuned, "val_loss"),
        "loss_after": instructed["val_loss"],
        "longer_is_better": longer_is_better(json.loads(held_out_pairs.read_text(encoding="utf-8"))),
        "dpo_loss": dpo["val_loss"],
        "dpo_accuracy": dpo["val_accuracy"],
        "dpo_margin": dpo["val_margin"],
        "reward_accuracy": reward["val_accuracy"],
        "reward_accuracy_longer": reward["val_accuracy_longer"],
        "reward_accuracy_shorter": reward["val_accuracy_shorter"],
        "held_out": len(json.loads(held_out_pairs.read_text(encoding="utf-8"))),
        "seconds": {
            name: result["seconds"]
            for name, result in {"pretrain": pretrained, "finetune": instructed, "dpo": dpo, "reward": reward}.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the three files")
    parser.add_argument("--steps", type=int, default=1000, help="of reading books")
    parser.add_argument("--json", action="store_true", help="print only one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        figures = learn(arguments.data, Path(temporary), arguments.steps)
    claims = met(figures)
    machine = f"{platform.machine()} {platform.system()}, Python {platform.python_version()}"
    print(json.dumps({**figures, "machine": machine, "met": claims}))
    sys.exit(not all(claims.values()))


if __name__ == "__main__":
    main()
