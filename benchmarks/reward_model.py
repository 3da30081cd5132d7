"""Claim: a reward model of 0.1M parameters, fresh, learns from preferences which answer is the kinder one: on held-out
prompts it is right ≥ 99% of the time, and ≥ 93% when 20% of the preferences that it learned from are flipped.

An answer is a handful of words, some of them kind or rude; the one with more kind and fewer rude words is the better.
Held-out pairs are always the right way round; in as many of them the longer answer is the better one as the worse.
Run: python benchmarks/reward_model.py --json   (about 2 minutes on 2 cores)
Ends with exit code 1 when a claim is not met.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

FLIPPED = 0.2
"""Share of the preferences that are the wrong way round, of the second claim."""

KIND = ("please", "thanks", "gladly", "welcome", "sorry", "lovely")
RUDE = ("stupid", "shut", "idiot", "hate", "nonsense", "ugly")
SHAPE = {"layers": 2, "width": 64, "heads": 2, "ff_width": 128, "context": 64}


def met(figures: Mapping[str, Any]) -> dict[str, bool]:
    """Which claims the figures meet; a figure that is no number meets none."""
    return {
        "at least 99% right": figures["clean"] >= 0.99,
        "at least 93% right from flipped labels": figures["flipped"] >= 0.93,
    }


def pairs(count: int, seed: str, known: Collection[str] = ()) -> list[dict[str, str]]:
    """Prompts, other ones than are known, with a kinder and a less kind answer."""
    from seedbed.data.skills import WORDS

    draw, found = random.Random(seed), []
    while len(found) < count:
        answers = {}
        for _ in range(2):
            words = [draw.choice(draw.choices((WORDS, KIND, RUDE), (4, 1, 1))[0]) for _ in range(draw.randint(3, 9))]
            answers[" ".join(words)] = sum((word in KIND) - (word in RUDE) for word in words)
        worse, better = sorted(answers, key=lambda answer: answers[answer])[0], max(answers, key=lambda a: answers[a])
        prompt = f"{' '.join(draw.choices(WORDS, k=3))}?"
        if answers[better] > answers[worse] and prompt not in known:
            found.append({"prompt": prompt, "chosen": better, "rejected": worse})
    return found


def flip(rows: list[dict[str, str]], share: float) -> list[dict[str, str]]:
    """The same, a share of them the wrong way round."""
    draw = random.Random("flips")
    return [
        row | {"chosen": row["rejected"], "rejected": row["chosen"]} if draw.random() < share else row for row in rows
    ]


def fresh_model(folder: Path) -> Path:
    """A model that knows nothing, to whom most words are a token."""
    import torch

    from seedbed.data.skills import WORDS
    from seedbed.model.config import ModelConfig
    from seedbed.model.folder import save_model
    from seedbed.model.transformer import Transformer
    from seedbed.tokenizers import byte_pair

    torch.manual_seed(0)
    tokenizer = byte_pair.train([f"{word} {word}" for word in (*WORDS, *KIND, *RUDE)] * 5, vocab_size=500)
    model = Transformer(ModelConfig(**SHAPE).with_tokenizer(tokenizer))
    save_model(folder, model, tokenizer, inputs={}, card={})
    return folder


def learn(
    place: Path, name: str, rows: list[dict[str, str]], held_out: list[dict[str, str]], steps: int
) -> dict[str, Any]:
    """What `seedbed reward` says of the held-out pairs."""
    from seedbed.alignment.reward_models.config import RewardConfig
    from seedbed.alignment.reward_models.training import reward
    from seedbed.configuration import from_arguments
    from seedbed.shards import write_rows

    for file, written in (("train", rows), ("held_out", held_out)):
        write_rows(place / f"{name}_{file}.jsonl", written)
    given = [f"--model={place / 'fresh'}", f"--out={place / name}", f"--data={place / f'{name}_train.jsonl'}"]
    given += [f"--validation={place / f'{name}_held_out.jsonl'}", f"--train.steps={steps}", "--train.batch=32"]
    given += [f"--train.validation_rows={len(held_out)}", "--train.micro_batch=32", "--optimizer.rate=0.003"]
    given += ["--train.device=cpu", f"--train.validate_every={steps}", "--train.compile=off", "--length=64"]
    return reward(from_arguments(RewardConfig, given))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=6000)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--json", action="store_true", help="print only one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        fresh_model(place / "fresh")
        rows = pairs(arguments.pairs, "training")
        held_out = pairs(1000, "held out", {row["prompt"] for row in rows})
        results = {
            name: learn(place, name, learned, held_out, arguments.steps)
            for name, learned in (("clean", rows), ("flipped", flip(rows, FLIPPED)))
        }
    figures = {
        **{name: result["val_accuracy"] for name, result in results.items()},
        **{f"{name}_longer": result["val_accuracy_longer"] for name, result in results.items()},
        **{f"{name}_shorter": result["val_accuracy_shorter"] for name, result in results.items()},
        "length_correlation": results["clean"]["val_length_correlation"],
        "seconds": sum(result["seconds"] for result in results.values()),
        "machine": f"{platform.machine()} {platform.system()}, Python {platform.python_version()}",
    }
    claims = met(figures)
    print(json.dumps({**figures, "met": claims}))
    sys.exit(not all(claims.values()))


if __name__ == "__main__":
    main()
