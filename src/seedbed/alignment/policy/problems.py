"""Problems as a policy is asked them: read, parted, encoded, judged to be judgeable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from seedbed.alignment.answers import split_by_prompt
from seedbed.alignment.policy.config import PolicyConfig
from seedbed.alignment.rewards.rewards import Rewards
from seedbed.data.preferences import OpenProblem, Problem, read_rows
from seedbed.data.problems import EncodedProblem, ProblemEncoder
from seedbed.errors import ConfigError, DataError
from seedbed.model.config import ModelConfig
from seedbed.tokenizers.tokenizer import Tokenizer

LONGEST = 256
"""Tokens of an answer at most, where the config does not say."""

SHARE = 4
"""Of the context, a quarter is an answer's at least, where the config does not say."""


def read_problems(
    config: PolicyConfig, model: ModelConfig, tokenizer: Tokenizer, rewards: Rewards
) -> tuple[list[EncodedProblem], list[EncodedProblem], Counter[str]]:
    """Problems to learn from, those to validate on, and how many prompts were left out or cut."""
    longest = config.prompt_tokens or prompt_room(config, model)
    if not 2 <= longest <= prompt_room(config, model):
        raise ConfigError(
            f"the model's context of {model.context} tokens does not hold a prompt of {max(longest, 2)} and an answer "
            f"of {config.max_tokens or least_answer(model)}",
            "Give a smaller max_tokens or prompt_tokens.",
        )
    kind = Problem if rewards.reads_rows else OpenProblem
    train = list(read_rows(kind, config.data))
    if config.validation is not None:
        held_out = list(read_rows(kind, config.validation))
    else:
        train, held_out = split_by_prompt(train, config.validation_fraction, config.data)
    rewards.refuse([*train, *held_out])
    encoder = ProblemEncoder(tokenizer, longest, overlong=config.overlong)
    encoded = list(encoder.problems(train)), list(encoder.problems(held_out))
    for some, file in zip(encoded, (config.data, config.validation or config.data), strict=True):
        if not some:
            raise DataError(f"no prompt in {file} has at most {longest:,} tokens", "Allow more: --prompt_tokens.")
    return *encoded, encoder.counts


def least_answer(model: ModelConfig) -> int:
    """Tokens that an answer has room for in any case, where the config does not say."""
    return min(LONGEST, max(1, model.context // SHARE))


def prompt_room(config: PolicyConfig, model: ModelConfig) -> int:
    """Tokens of the longest prompt that the context holds beside an answer."""
    return model.context - (config.max_tokens or least_answer(model))


def answer_room(config: PolicyConfig, model: ModelConfig, problems: Iterable[EncodedProblem]) -> int:
    """Tokens of the longest answer: what the config says, or what the context holds beside the longest prompt."""
    return config.max_tokens or min(LONGEST, model.context - max(len(problem.prompt) for problem in problems))
