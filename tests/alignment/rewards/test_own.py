"""Functions of a person's own file are rewards by their names; what cannot be one is told before a run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from seedbed.alignment.policy.config import GrpoConfig
from seedbed.alignment.rewards.own import read_rewards
from seedbed.alignment.rewards.rewards import Rewards
from seedbed.alignment.rewards.rules import Answer
from seedbed.configuration import from_arguments, load_config
from seedbed.data.preferences import Problem
from seedbed.errors import ConfigError, DataError

ASKED = Problem("rows.jsonl, row 1", [{"role": "user", "content": "2+3="}], "5", "exact", ())
PAGE = Path(__file__).parents[3] / "docs" / "reinforcement.md"
BREVITY = "def brevity(problem, answer):\n    return 1 / (1 + len(answer.split()))\n"


def own(folder: Path, source: str) -> Path:
    path = folder / "rewards.py"
    path.write_text(source)
    return path


def test_the_example_of_the_page_says_what_it_promises(tmp_path):
    (source,) = [each for each in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "brevity" in each]
    functions = read_rewards(own(tmp_path, source), ["brevity", "exact"])
    assert list(functions) == ["brevity", "shows_work"]
    rewards = Rewards({"brevity": 0.5, "shows_work": 0.2, "exact": 1.0}, functions)
    worth = rewards([Answer(ASKED, "2 + 3 = 5"), Answer(ASKED, "5"), Answer(ASKED, "")])
    assert worth.rewards_BF.tolist() == [[pytest.approx(1 / 6), 1, 0], [0.5, 0, 1], [1, 0, 0]]
    assert worth.shaped_B.tolist() == pytest.approx([1 / 12 + 0.2, 1.25, 0.5])


def test_only_what_the_file_defines_and_shows_is_a_reward(tmp_path):
    source = (
        "from math import sqrt\nfrom dataclasses import dataclass\n\n@dataclass\nclass Part:\n    size: 'int' = 1\n\n"
    )
    found = read_rewards(own(tmp_path, source + BREVITY + "\ndef _words(text):\n    return text\n"), ["brevity"])
    assert list(found) == ["brevity"]
    assert [path.name for path in tmp_path.iterdir()] == ["rewards.py"]  # no compiled copy beside it


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (BREVITY + "\ndef exact(problem, answer):\n    return 1.0\n", "has a function exact, and exact is a reward al"),
        (
            "def brevty(problem, answer):\n    return 1.0\n",
            "rewards names nothing that .*rewards.py has: it has brevty",
        ),
        ("x = 1\n", "it has no function that is public"),
        ("async def brevity(problem, answer):\n    return 1.0\n", "brevity gives no number when it is called"),
        ("def brevity(problem, answer):\n    yield 1.0\n", "brevity gives no number when it is called"),
        ("import sys\nx = 1 / 0\n", r"rewards.py, line 2: ZeroDivisionError: division by zero"),
        ("def f(:\n", r"rewards.py, line 1: SyntaxError: "),
        ("import sys\nsys.exit(3)\n", "rewards.py, line 2: SystemExit: 3"),
        ("\nimport no_such_package\n", "rewards.py, line 2: ModuleNotFoundError: No module named 'no_such_package'"),
        ("def brevity(completions, **kwargs):\n    return [1.0]\n", "is not called so; trl's take lists"),
        ("def brevity(prompts, completions, **kwargs):\n    return [1.0]\n", "is not called so; trl's take lists"),
        ("def brevity(answer):\n    return 1.0\n", r"brevity\(answer\) is not called so$"),
        ("def brevity(problem, answer, scale):\n    return 1.0\n", "is not called so$"),
    ],
)
def test_a_file_that_gives_no_reward_is_told_in_a_line(source, problem, tmp_path):
    with pytest.raises(ConfigError) as caught:
        read_rewards(own(tmp_path, source), ["brevity", "check"])
    assert re.search(problem, caught.value.problem) and "\n" not in caught.value.problem


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"own_rewards: .*none\.py cannot be read: No such file"):
        read_rewards(tmp_path / "none.py", ["brevity"])


def test_a_name_that_is_nearly_one_is_told_which(tmp_path):
    functions = read_rewards(own(tmp_path, BREVITY), ["brevity"])
    with pytest.raises(ConfigError, match="there is no reward 'brevitty'; did you mean brevity"):
        Rewards({"brevity": 1, "brevitty": 1}, functions)
    with pytest.raises(ConfigError, match="Functions of a file of yours are given by --own_rewards FILE"):
        Rewards({"brevity": 1})


def test_no_config_file_brings_code_along(tmp_path):
    (tmp_path / "handed.yaml").write_text("own_rewards: rewards.py\nmodel: m\ndata: d\nout: o\n")
    given = ["--config", str(tmp_path / "handed.yaml")]
    with pytest.raises(ConfigError, match="own_rewards names code to be run, which a config file may not"):
        from_arguments(GrpoConfig, given)
    assert from_arguments(GrpoConfig, [*given, "--own_rewards=mine.py"]).own_rewards == Path("mine.py")
    assert from_arguments(GrpoConfig, [*given, "--own_rewards=null"]).own_rewards is None
    assert load_config(tmp_path / "handed.yaml", GrpoConfig).own_rewards == Path("rewards.py")  # looked at, not run


def test_a_reward_that_ends_the_program_is_an_error_and_no_end_without_a_word(tmp_path):
    found = read_rewards(own(tmp_path, "import sys\n\ndef brevity(problem, answer):\n    sys.exit(0)\n"), ["brevity"])
    with pytest.raises(DataError, match="the reward brevity failed, SystemExit: 0"):
        Rewards({"brevity": 1.0}, found)([Answer(ASKED, "5")])


def test_what_a_reward_changes_in_a_problem_is_changed_for_nobody_else(tmp_path):
    source = "def greedy(problem, answer):\n    return float(len(problem.prompt.pop()['content']))\n"
    rewards = Rewards({"greedy": 1.0}, read_rewards(own(tmp_path, source), ["greedy"]))
    assert rewards([Answer(ASKED, "5"), Answer(ASKED, "6")]).rewards_BF.tolist() == [[4.0], [4.0]]
    assert len(ASKED.prompt) == 1


def test_a_function_some_of_whose_arguments_are_given_is_one(tmp_path):
    source = (
        "from functools import partial\n\n"
        "def _less(problem, answer, most):\n    return float(len(answer) < most)\n\n"
        "short = partial(_less, most=3)\n"
    )
    rewards = Rewards({"short": 1.0}, read_rewards(own(tmp_path, source), ["short"]))
    assert rewards([Answer(ASKED, "ab"), Answer(ASKED, "abc")]).rewards_BF.tolist() == [[1.0], [0.0]]
