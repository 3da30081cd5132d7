"""No attack gets anything, and each earns the verdict that is right."""

from __future__ import annotations

import os
import platform
import sys

import pytest

from seedbed.sandbox import Verdict
from tests.sandbox.attack_suite import Attack, World, attacks, world
from tests.sandbox.boxed import boxed

ATTACKS = attacks()


@pytest.fixture(scope="module")
def attacked():
    with world() as there:
        yield there


@boxed
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the attacks make system calls by the numbers of x86-64")
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_nothing_escapes_and_the_verdict_is_right(attack: Attack, attacked: World):
    verdict = attacked.attack(attack)
    assert attacked.harm(verdict) == []
    assert attack.right(verdict), verdict


def test_there_are_at_least_forty_attacks():
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 40


@pytest.mark.parametrize(
    "name", ["the environment of its parent", "the model folder", "up and out", "connect to a server on this machine"]
)
def test_outside_of_a_box_the_same_attack_is_noticed(name, attacked, tmp_path):
    """The suite would see an escape: with nothing around it, the attack succeeds."""
    import json
    import subprocess

    program = next(attack.program for attack in ATTACKS if attack.name == name)
    command = [sys.executable, "-I", "-c", program, json.dumps(attacked.facts | {"parent": os.getpid()})]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path)
    assert attacked.harm(Verdict("passed", "", done.stdout, done.stderr, 0.0)) != []
