"""Beam and contrastive search in plain Python: every score by a full forward pass over the whole row, nothing kept.

Each follows its paper, one continuation at a time, so that it can be read beside it.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F


@torch.no_grad()
def logprobs(model, row, made, *, vocabulary, frequency_penalty=0.0):
    """Of each token after the row, of which the last `made` tokens were made."""
    scores = model(torch.tensor([row]))[0, -1, :vocabulary].double()
    for token in row[len(row) - made :]:
        scores[token] -= frequency_penalty
    return scores.log_softmax(-1).tolist()


def exhaustive(model, prompt, *, vocabulary, end, longest, length_penalty):
    """Every continuation of at most `longest` tokens with its score, the best first: (score, tokens, reason)."""
    total = {(): 0.0}
    found = []
    for length in range(1, longest + 1):
        for made in itertools.product([token for token in range(vocabulary) if token != end], repeat=length - 1):
            after = logprobs(model, [*prompt, *made], len(made), vocabulary=vocabulary)
            for token, logprob in enumerate(after):
                score = total[made] + logprob
                if token == end:
                    found.append((score / length**length_penalty, made, "end"))
                elif length == longest:
                    found.append((score / length**length_penalty, (*made, token), "length"))
                else:
                    total[*made, token] = score
    return sorted(found, reverse=True)


def beam_search(model, prompt, config, *, vocabulary, end, stopped=lambda made: False):
    """(score, tokens) of what beam search with the settings of `config` finds, ending when all beams have. `stopped`:
    whether tokens hold a stop text."""
    width = config.beams // config.beam_groups
    running = [[(0.0, ())] for _ in range(config.beam_groups)]
    finished = [[] for _ in range(config.beam_groups)]
    while any(running):
        taken = []
        for group, beams in enumerate(running):
            ways = []
            for total, made in beams:
                after = logprobs(
                    model,
                    [*prompt, *made],
                    len(made),
                    vocabulary=vocabulary,
                    frequency_penalty=config.frequency_penalty,
                )
                for token, logprob in enumerate(after):
                    rank = total + logprob - config.diversity * taken.count(token)
                    ways.append((rank, total + logprob, (*made, token)))
            ways.sort(reverse=True)
            running[group] = []
            for place, (_, total, made) in enumerate(ways):
                ends = made[-1] == end or len(made) == config.max_tokens or stopped(made)
                if ends and place < width:
                    tokens = made[:-1] if made[-1] == end else made
                    finished[group].append((total / len(made) ** config.length_penalty, tokens))
                elif not ends and len(running[group]) < width:
                    running[group].append((total, made))
            if len(finished[group]) >= width and config.early_stopping == "full":
                running[group] = []
            taken += [made[-1] for _, made in running[group]]
        finished = [sorted(group, reverse=True)[:width] for group in finished]
    return sorted(
        {tokens: score for score, tokens in sorted(itertools.chain(*finished))}.items(), key=lambda each: -each[1]
    )


@torch.no_grad()
def contrastive_search(model, prompt, *, alpha, k, longest, end):
    """The tokens."""
    row = list(prompt)
    while len(row) < len(prompt) + longest:
        states = model.hidden(torch.tensor([row]))[0]
        probabilities = model.logits(states[-1]).softmax(-1)
        best = (-math.inf, -1)
        for probability, token in zip(*probabilities.topk(k), strict=True):
            state = model.hidden(torch.tensor([[*row, token]]))[0, -1]
            likeness = F.cosine_similarity(state[None], states).max()
            best = max(best, ((1 - alpha) * probability.item() - alpha * likeness.item(), token.item()))
        if best[1] == end:
            break
        row.append(best[1])
    return tuple(row[len(prompt) :])
