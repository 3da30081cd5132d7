"""What becomes of the scores that a model gives: a token for each who is being answered, and its text.

Shape suffixes: B generations, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seedbed.errors import DataError
from seedbed.inference.constraints import Grammars
from seedbed.inference.generation import Generation, Likelihood
from seedbed.inference.sampling import choose_each, no_choice
from seedbed.inference.scheduler import Scheduler
from seedbed.tokenizers.tokenizer import Tokenizer


class Choosing:
    """Of one engine."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: int, grammars: Grammars, scheduler: Scheduler):
        """`vocabulary`: ids that are tokens. `scheduler`: of those who are being answered."""
        self.tokenizer, self.vocabulary, self.grammars, self.scheduler = tokenizer, vocabulary, grammars, scheduler

    def choose(self, logits_BV: Tensor, generations: Sequence[Generation]) -> list[tuple[Generation, str]]:
        """A token for each."""
        adjusted_BV = self.adjusted(logits_BV, generations)
        numbers = [generation.number() for generation in generations]
        tokens = choose_each(adjusted_BV, [generation.sampling for generation in generations], numbers)
        told = []
        for generation, token, logits_V in zip(generations, tokens, logits_BV, strict=True):
            if token < 0:
                told.append(self.fail(generation, no_choice(logits_V)))
                continue
            if generation.sampling.logprobs is not None:
                generation.likelihoods.append(Likelihood.of(token, logits_V, generation.sampling.logprobs))
            told.append(self.take(generation, token))
        return told

    def adjusted(self, logits_BV: Tensor, generations: Sequence[Generation]) -> Tensor:
        """The scores to choose by, fp32: after what each request changes in those of the model."""
        adjusted_BV = logits_BV.float()
        if any(g.adjustments is not None or g.constraint is not None for g in generations):
            rows = zip(adjusted_BV, generations, strict=True)
            adjusted_BV = torch.stack([generation.adjusted(row_V) for row_V, generation in rows])
        ends = [token for token in self.tokenizer.end_ids if token < self.vocabulary]
        early = [row for row, generation in enumerate(generations) if not generation.may_end]
        if ends and early:
            places = torch.tensor(early)[:, None], torch.tensor(ends)
            # Not in place: logits_BV tell log-probabilities, too.
            adjusted_BV = adjusted_BV.index_put(places, adjusted_BV.new_tensor(-torch.inf))
        return adjusted_BV

    def take(self, generation: Generation, token: int) -> tuple[Generation, str]:
        """One more token, and those that must follow it: the text that is now certain. It ends when the model, a stop
        text, its constraint or its limit says so."""
        if token in self.tokenizer.end_ids:
            return self.end(generation, "end")
        constraint, piece = generation.constraint, ""
        tokens = [token] if constraint is None else [token, *constraint.add(token)]
        for place, each in enumerate(tokens, start=1):
            generation.add(each)
            generation.jumped += place > 1
            piece += generation.text.push(each, may_stop=generation.may_end)
            if generation.text.stopped:
                return self.end(generation, "stop", piece)
            if place == len(tokens) and constraint is not None and constraint.complete:
                return self.end(generation, "end", piece)
            if len(generation.tokens) == generation.limit:
                return self.end(generation, "length", piece)
        return generation, piece

    def fail(self, generation: Generation, error: DataError) -> tuple[Generation, str]:
        """It cannot go on, by its constraint if that says why; the others can."""
        constraint = generation.constraint
        if constraint is not None and constraint.stuck is not None:
            error = DataError(f"the answer cannot go on as its constraint wants: {constraint.stuck}")
            self.grammars.forget(generation.sampling)
        generation.error = error
        return self.end(generation, "error")

    def end(self, generation: Generation, reason: str, piece: str = "") -> tuple[Generation, str]:
        """It is done; the text that was held back is certain now."""
        generation.reason = reason
        self.scheduler.remove(generation)
        return generation, piece + generation.text.flush()
