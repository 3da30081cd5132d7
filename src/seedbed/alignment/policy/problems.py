"""Problems as a policy is asked them: read, parted, encoded, judged to be judgeable."""

from __future__ import annotations

from collections import Counter

from seedbed.alignment.answers import split_by_prompt
from seedbed.alignment.policy.config import PolicyConfig
from seedbed.alignment.rewards import Rewards
from seedbed.data.answers import AnswerEncoder, EncodedProblem
from seedbed.data.preferences import Problem, read_rows
from seedbed.errors import ConfigError, DataError
from seedbed.model.config import ModelConfig
from seedbed.tokenizers.tokenizer import Tokenizer


def read_problems(
    config: PolicyConfig, model: ModelConfig, tokenizer: Tokenizer, rewards: Rewards
) -> tuple[list[EncodedProblem], list[EncodedProblem], Counter[str]]:
    """Problems to learn from, those to validate on, and how many prompts were left out or cut."""
    room = model.context - config.max_tokens
    longest = config.prompt_tokens or room
    if not 2 <= longest <= room:
        raise ConfigError(
            f"the model's context of {model.context} tokens does not hold a prompt of {max(longest, 2)} and an answer "
            f"of {config.max_tokens}",
            "Give a smaller max_tokens or prompt_tokens.",
        )
    train = list(read_rows(Problem, config.data))
    if config.validation is not None:
        held_out = list(read_rows(Problem, config.validation))
    else:
        train, held_out = split_by_prompt(train, config.validation_fraction, config.data)
    rewards.refuse([*train, *held_out])
    encoder = AnswerEncoder(tokenizer, longest, overlong=config.overlong)
    encoded = list(encoder.problems(train)), list(encoder.problems(held_out))
    for some, file in zip(encoded, (config.data, config.validation or config.data), strict=True):
        if not some:
            raise DataError(f"no prompt in {file} has at most {longest:,} tokens", "Allow more: --prompt_tokens.")
    return *encoded, encoder.counts
