"""`seedbed kto`: answers that are each judged alone. Kahneman–Tversky optimisation (Ethayarajh et al. 2024,
arXiv:2402.01306).

How far the model has gone from the reference is estimated, as the authors do it, from prompts with answers to other
prompts. Each judgement has a partner for good, and a group of judgements shares one estimate, so that it, and with it
the loss, does not depend on how a step is cut into micro-batches.

Shape suffixes: S judgements, G groups of them, K = 2 completions of a judgement: its answer, and another prompt's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from seedbed.alignment.answers import Answered, encode_answers, fit, read_split
from seedbed.alignment.direct.config import KtoConfig
from seedbed.alignment.direct.losses import kto_loss
from seedbed.alignment.log_probabilities import completion_log_probabilities
from seedbed.alignment.source import AnswerBatch, AnswerRow
from seedbed.alignment.stage import Beginning, begin, run_answers
from seedbed.data.preferences import Judgement
from seedbed.errors import ConfigError
from seedbed.model.transformer import Transformer
from seedbed.progress import progress
from seedbed.tokenizers.chat import Encoded
from seedbed.training.objective import Loss, Objective, Tally
from seedbed.training.observers.observer import Observer
from seedbed.training.parallel.launch import in_parallel


class KtoObjective(Objective[AnswerBatch]):
    """A mean over judgements."""

    def __init__(self, config: KtoConfig):
        self.config = config

    def loss(self, model: Transformer, batch: AnswerBatch) -> Loss:
        config = self.config
        assert batch.reference_SK is not None  # told when the run began
        logs_KS = completion_log_probabilities(model, batch.completions).unflatten(0, (2, -1))
        rewards_KS = config.beta * (logs_KS - batch.reference_SK.T)
        divergence_G = rewards_KS[1].detach().unflatten(0, (-1, config.group)).mean(1)
        baseline_S = divergence_G.clamp(min=0).repeat_interleave(config.group)
        wanted_S = batch.told_L > 0
        loss_S = kto_loss(rewards_KS[0], baseline_S, wanted_S, config.wanted_weight, config.unwanted_weight)
        rewards_S = rewards_KS[0].detach()
        totals = {
            "wanted": wanted_S.sum(),
            "wanted_reward": rewards_S[wanted_S].sum(),
            "unwanted_reward": rewards_S[~wanted_S].sum(),
            "divergence": baseline_S.sum() / config.beta,
        }
        return Loss(loss_S.sum(), len(loss_S), {name: float(total) for name, total in totals.items()})

    def report(self, tally: Tally) -> dict[str, float]:
        """ "margin": how much higher the mean reward of wanted answers is; "divergence": in nats, at least 0."""
        units, totals = tally.units or math.nan, tally.totals
        wanted = totals["wanted"]
        rewards = {
            "wanted_reward": totals["wanted_reward"] / (wanted or math.nan),
            "unwanted_reward": totals["unwanted_reward"] / ((tally.units - wanted) or math.nan),
        }
        margin = rewards["wanted_reward"] - rewards["unwanted_reward"]
        return {"loss": tally.sum / units, "margin": margin, **rewards, "divergence": totals["divergence"] / units}

    def judge(self, metrics: Mapping[str, float]) -> float:
        """As the config says; a margin is the better the higher."""
        return metrics["loss"] if self.config.judge == "loss" else -metrics["margin"]


@in_parallel
def kto(config: KtoConfig, observers: Sequence[Observer] = ()) -> dict[str, Any]:
    """Learns from judgements; returns the result that `result.json` holds. `observers` watch the run beside those that
    the config asks for."""
    beginning = begin(config)
    parts = read_split(Judgement, config.data, config, beginning.counts)
    rows = [_encode(part, beginning) for part in parts]
    _refuse_blind_judge(config, rows[1])
    return run_answers(
        "kto", beginning, rows, KtoObjective(config), compares=True, group=config.group, observers=observers
    )


def _refuse_blind_judge(config: KtoConfig, held_out: Sequence[AnswerRow]) -> None:
    """ConfigError where steps are to be compared by a margin that validation data of one kind do not have."""
    compares = config.train.patience is not None or config.train.select == "best"
    if config.judge == "margin" and compares and len({row.told for row in held_out}) == 1:
        raise ConfigError(
            f"the {len(held_out):,} judgements to validate on have one label, so no step has a margin to be judged by",
            "Keep more of them apart (--validation_fraction, --validation), or take --judge loss.",
        )


def _encode(rows: Sequence[Judgement], beginning: Beginning[KtoConfig]) -> list[AnswerRow]:
    """Each answer behind its prompt, and that of the next row behind the same prompt."""
    fitting: list[tuple[Answered, bool]] = []
    with progress("encoding", total=len(rows), unit="rows") as advance:
        for row in rows:
            advance(1)
            answered = encode_answers(beginning.tokenizer, row.name, row.prompt, (row.completion,))
            kept = fit(answered, beginning.length, beginning.config.overlong, beginning.counts)
            if kept is not None:
                fitting.append((kept, row.label))
    found = []
    for number, (own, label) in enumerate(fitting):
        other, _ = fitting[(number + 1) % len(fitting)]
        completions = own.whole(own.answers[0]), _cut(own.whole(other.answers[0]), beginning.length)
        found.append(AnswerRow(completions, (float(label),)))
    return found


def _cut(completion: Encoded, length: int) -> Encoded:
    """An answer of another prompt may be too long behind this one; its beginning tells as much."""
    ids, mask = completion
    return ids[:length], mask[:length]
