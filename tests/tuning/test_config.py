"""What every stage refuses that learns from rows, beginning with a model."""

from __future__ import annotations

import pytest

from seedbed.alignment.direct.config import DirectConfig, KtoConfig
from seedbed.alignment.policy.config import GrpoConfig, PpoConfig
from seedbed.alignment.reward_models.config import RewardConfig
from seedbed.configuration import from_arguments
from seedbed.errors import ConfigError
from seedbed.tuning.config import FinetuneConfig

STAGES = [FinetuneConfig, DirectConfig, KtoConfig, RewardConfig, GrpoConfig, PpoConfig]
GIVEN = ["--model=m", "--data=d", "--out=o"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--train.horizon=0.5"], r"train\.horizon is a budget of pretrain alone"),
        (["--validation_fraction=0.6"], "validation_fraction must be between 0 and 0.5"),
        (["--validation=v", "--validation_fraction=0.1"], "validation_fraction does nothing beside validation"),
    ],
)
def test_each_of_them_says_what_is_for_others(stage, arguments, said):
    with pytest.raises(ConfigError, match=said):
        from_arguments(stage, [*GIVEN, *arguments])
