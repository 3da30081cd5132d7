"""`seedbed reward`: a model that scores answers as people would, from preferences between them, or from the steps of
answers that people have judged.

Shape suffixes: S preferences, K = 2 answers of each (the better one first), N steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from seedbed.alignment.answers import encode_steps, fit, read_split
from seedbed.alignment.reward_models.config import RewardConfig
from seedbed.alignment.reward_models.losses import bradley_terry_loss, centring_term, ranking_loss, step_loss
from seedbed.alignment.reward_models.scores import completion_scores, target_scores
from seedbed.alignment.source import AnswerBatch, AnswerRow
from seedbed.alignment.stage import Beginning, begin, encode_preferences, run_answers
from seedbed.data.preferences import Preference, Solution
from seedbed.data.rows import naming
from seedbed.model.score_head import with_score_head
from seedbed.model.transformer import Transformer
from seedbed.progress import progress
from seedbed.tokenizers.tokenizer import Tokenizer
from seedbed.training.objective import Loss, Objective, Tally
from seedbed.training.observers.observer import Observer
from seedbed.training.parallel.launch import in_parallel
from seedbed.tuning.equipment import load_base


class RewardObjective(Objective[AnswerBatch]):
    """Of preferences, a mean over them; and whether the model goes by the length of answers."""

    def __init__(self, config: RewardConfig):
        self.config = config

    def loss(self, model: Transformer, batch: AnswerBatch) -> Loss:
        config = self.config
        scores_KS = completion_scores(model, batch.completions).unflatten(0, (2, -1))
        chosen_S, rejected_S = scores_KS
        if config.loss == "ranking":
            loss_S = ranking_loss(chosen_S, rejected_S, batch.told_L.nan_to_num(config.margin))
        else:
            margin_S = batch.told_L.nan_to_num(0.0) if config.use_margins else 0.0
            loss_S = bradley_terry_loss(chosen_S, rejected_S, margin_S)
        loss_S = loss_S + config.centring * centring_term(chosen_S, rejected_S)
        lengths_KS = batch.completions.lengths_C.unflatten(0, (2, -1))
        return Loss(loss_S.sum(), len(loss_S), _totals(scores_KS.detach(), lengths_KS))

    def report(self, tally: Tally) -> dict[str, float]:
        """ "accuracy": how often the better answer scores higher; "accuracy_longer", "accuracy_shorter": where it is
        the longer, or the shorter one. "length_correlation": Pearson's, of scores and tokens of all answers."""
        totals, units = tally.totals, tally.units or math.nan
        answers = 2 * units
        mean, mean_length = totals["score"] / answers, totals["tokens"] / answers
        covariance = totals["score·tokens"] / answers - mean * mean_length
        variances = [totals["score²"] / answers - mean**2, totals["tokens²"] / answers - mean_length**2]
        spread = math.sqrt(max(0.0, variances[0]) * max(0.0, variances[1]))
        metrics = {"loss": tally.sum / units, "accuracy": totals["right"] / units, "margin": totals["margin"] / units}
        for kind in ("longer", "shorter"):
            metrics[f"accuracy_{kind}"] = totals[f"right_{kind}"] / (totals[kind] or math.nan)
        return metrics | {
            "score": mean,
            "score_deviation": math.sqrt(max(0.0, variances[0])),
            "length_correlation": covariance / (spread or math.nan),
        }


def _totals(scores_KS: Tensor, lengths_KS: Tensor) -> dict[str, float]:
    """Sums from which the metrics follow, however the data is cut."""
    scores_KS, lengths_KS = scores_KS.double(), lengths_KS.double()
    right_S = scores_KS[0] > scores_KS[1]
    longer_S, shorter_S = lengths_KS[0] > lengths_KS[1], lengths_KS[0] < lengths_KS[1]
    sums = {
        "right": right_S.sum(),
        "margin": (scores_KS[0] - scores_KS[1]).sum(),
        "longer": longer_S.sum(),
        "shorter": shorter_S.sum(),
        "right_longer": (right_S & longer_S).sum(),
        "right_shorter": (right_S & shorter_S).sum(),
        "score": scores_KS.sum(),
        "score²": scores_KS.square().sum(),
        "tokens": lengths_KS.sum(),
        "tokens²": lengths_KS.square().sum(),
        "score·tokens": (scores_KS * lengths_KS).sum(),
    }
    return {name: float(total) for name, total in sums.items()}


class ProcessObjective(Objective[AnswerBatch]):
    """Of steps, a mean over them."""

    def loss(self, model: Transformer, batch: AnswerBatch) -> Loss:
        score_N = target_scores(model, batch.completions)
        right_N = batch.told_L
        loss_N = step_loss(score_N, right_N)
        agrees_N = (score_N.detach() > 0) == (right_N > 0)
        totals = {"right": float(right_N.sum()), "agrees": float(agrees_N.sum())}
        totals["agrees_wrong"] = float((agrees_N & (right_N == 0)).sum())
        return Loss(loss_N.sum(), len(loss_N), totals)

    def report(self, tally: Tally) -> dict[str, float]:
        """ "accuracy": how often it says of a step what people say; "accuracy_wrong": of those that are wrong."""
        units, totals = tally.units or math.nan, tally.totals
        wrong = (units - totals["right"]) or math.nan
        accuracies = {"accuracy": totals["agrees"] / units, "accuracy_wrong": totals["agrees_wrong"] / wrong}
        return {"loss": tally.sum / units, **accuracies, "right": totals["right"] / units}


@in_parallel
def reward(config: RewardConfig, observers: Sequence[Observer] = ()) -> dict[str, Any]:
    """Learns to score; returns the result that `result.json` holds. `observers` watch the run beside those that the
    config asks for."""
    beginning = begin(config, _under_score_head)
    if config.loss == "process":
        solutions = read_split(Solution, config.data, config, beginning.counts)
        steps = [_encode_solutions(part, beginning) for part in solutions]
        return run_answers("reward", beginning, steps, ProcessObjective(), observers=observers)
    preferences = read_split(Preference, config.data, config, beginning.counts)
    rows = [encode_preferences(part, beginning) for part in preferences]
    return run_answers("reward", beginning, rows, RewardObjective(beginning.config), observers=observers)


def _under_score_head(config: RewardConfig) -> tuple[Transformer, Tokenizer]:
    model, tokenizer = load_base(config, scores=True)
    return with_score_head(model), tokenizer


def _encode_solutions(rows: Sequence[Solution], beginning: Beginning[RewardConfig]) -> list[AnswerRow]:
    """Each answer behind its prompt; of its tokens those are to be scored at which a step ends."""
    found, counts = [], beginning.counts
    with progress("encoding", total=len(rows), unit="rows") as advance:
        for row in rows:
            advance(1)
            with naming(row.name):
                answered = encode_steps(beginning.tokenizer, row.name, row.prompt, row.steps)
            fitting = fit(answered, beginning.length, beginning.config.overlong, counts)
            if fitting is None:
                continue
            kept = int(fitting.answers[0][1].sum())  # of an answer that was cut
            found.append(AnswerRow((fitting.whole(fitting.answers[0]),), tuple(map(float, row.labels[:kept]))))
    return found
