"""Which way attention is computed, and what is said when it is not the one that was asked for."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from seedbed.model.attention_paths import choice, flash
from seedbed.model.attention_paths.choice import choose
from seedbed.model.attention_paths.flash import FlashAttention
from seedbed.model.attention_paths.flex import FlexAttention
from seedbed.model.attention_paths.path import Heads
from seedbed.model.attention_paths.reference import ReferenceAttention
from seedbed.model.attention_paths.sdpa import ScaledDotProductAttention
from seedbed.model.masks import AttentionMask, BlockSparse
from tests.random_masks import CPU
from tests.random_models import random_model

HALF = Heads(4, 2, 64, torch.bfloat16)
WINDOW = AttentionMask(1, 9, 9, CPU, window=3)
ON_CUDA = replace(WINDOW, device=torch.device("cuda"))
"""Nothing is computed with it: what stands in the way is known without a GPU."""


@pytest.fixture(autouse=True)
def nothing_was_said():
    choice._announce.cache_clear()


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(flash, "is_installed", lambda: True)


@pytest.mark.parametrize("mask", [WINDOW, replace(WINDOW, window=None)], ids=["window", "whole"])
def test_a_cpu_takes_sdpa_and_says_nothing(mask, caplog):
    caplog.set_level(logging.INFO)
    assert isinstance(choose("auto", mask, HALF), ScaledDotProductAttention)
    assert not caplog.messages


def test_what_is_asked_for_is_taken():
    assert isinstance(choose("reference", WINDOW, HALF), ReferenceAttention)
    assert isinstance(choose("sdpa", WINDOW, HALF), ScaledDotProductAttention)


@pytest.mark.parametrize(
    ("asked", "obstacle"), [("flash", "flash-attn needs a GPU"), ("flex", "FlexAttention needs a GPU of CUDA or ROCm")]
)
def test_a_fallback_is_announced_once(asked, obstacle, caplog):
    for _ in range(3):
        assert isinstance(choose(asked, WINDOW, HALF), ScaledDotProductAttention)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(obstacle) and caplog.messages[0].endswith("sdpa is used")


def test_a_gpu_takes_flash_attn_for_masks_where_it_is_installed(installed):
    assert FlashAttention.obstacle(ON_CUDA, HALF) is None and FlexAttention.obstacle(ON_CUDA, HALF) is None
    assert choice._fastest(ON_CUDA) == ("flash", "flex", "sdpa")


def test_a_gpu_leaves_whole_rows_and_caches_to_sdpa():
    whole = replace(ON_CUDA, window=None)
    assert choice._fastest(whole) == choice._fastest(replace(whole, slots_BT=torch.zeros(1, 9))) == ("sdpa",)


@pytest.mark.parametrize(
    ("changes", "obstacle"),
    [
        ({"dtype": torch.float32}, "computes in fp16 and bf16, not in float32"),
        ({"width": 264}, "up to 256, not of 264"),
        ({"width": 20}, "a multiple of 8 up to 256, not of 20"),
    ],
)
def test_flash_says_what_heads_it_cannot_take(installed, changes, obstacle):
    assert obstacle in FlashAttention.obstacle(ON_CUDA, replace(HALF, **changes))


@pytest.mark.parametrize(
    "rules", [{"prefix_B": torch.ones(1)}, {"sparse": BlockSparse(4, 1)}, {"slots_BT": torch.ones(1, 9)}]
)
def test_flash_says_what_masks_it_cannot_take(installed, rules):
    assert "knows no prefixes" in FlashAttention.obstacle(replace(ON_CUDA, **rules), HALF)


def test_flex_says_what_heads_it_cannot_take():
    assert "from 16 on, not of 8" in FlexAttention.obstacle(ON_CUDA, replace(HALF, width=8))


def test_flex_leaves_dropout_and_caches_to_others():
    assert "dropout" in FlexAttention.obstacle(ON_CUDA, replace(HALF, dropout=0.1))
    assert "cache" in FlexAttention.obstacle(replace(ON_CUDA, slots_BT=torch.ones(1, 9)), HALF)


def test_a_model_attends_by_what_it_is_told():
    model = random_model(window=5, window_pattern="SL")
    mask = AttentionMask(1, 9, 9, CPU)
    assert {type(attend) for attend in model.attends(mask)} == {ScaledDotProductAttention}
    model.attend_by("reference")
    assert {type(attend) for attend in model.attends(mask)} == {ReferenceAttention}


@torch.no_grad()
def test_dropout_of_probabilities_is_for_training_only():
    model = random_model(dropout=0.5)
    assert all(attend.dropout == 0 for attend in model.attends(AttentionMask(1, 9, 9, CPU)))
    assert all(attend.dropout == 0.5 for attend in model.train().attends(AttentionMask(1, 9, 9, CPU)))


def test_under_autocast_the_path_is_chosen_for_its_dtype():
    config = random_model().config
    with torch.autocast("cpu", torch.bfloat16):
        assert Heads.of(config, torch.device("cpu"), torch.float32, training=False).dtype is torch.bfloat16
    assert Heads.of(config, torch.device("cpu"), torch.float32, training=False).dtype is torch.float32
