"""Compiled blocks, and when compiling pays.

One block is compiled and serves all layers, since they run the same code: the time it takes does not grow with depth.
Compiled kernels are kept on disk and serve the next run too.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from seedbed.errors import ConfigError
from seedbed.model.experts import Experts
from seedbed.model.transformer import Transformer

logger = logging.getLogger(__name__)

COMPILE_SECONDS = {"cpu": 60.0, "cuda": 40.0}
"""About what the first compiled step takes longer; measured on a 2-core CPU, a guess elsewhere."""

SAVED_SHARE = {"cpu": 0.1, "cuda": 0.2}
"""Of a step's time. On a CPU 0.1 to 0.25 were measured at `llama-small`; of a GPU a guess."""

MARGIN = 2.0
"""Saves at least so many times what it costs: both are estimates, and a run may be cut short."""

SHAPES = 64
"""Shapes of a batch, each compiled by itself, before torch gives up and runs the rest as it is."""


def compiler_problem(device: torch.device) -> str | None:
    """Why nothing can be compiled for this device; None when it can."""
    if device.type == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        return "compiling for a CPU needs g++"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "compiling for a GPU needs triton"
    return None if device.type in ("cpu", "cuda") else f"compiling is not supported on {device.type}"


def pays(seconds: float, device: torch.device) -> bool:
    """Whether a run that takes so long as it is would win back what compiling takes."""
    saved = SAVED_SHARE.get(device.type, 0.0) * seconds
    return compiler_problem(device) is None and saved > MARGIN * COMPILE_SECONDS.get(device.type, 0.0)


def check_compiler(device: torch.device) -> None:
    """ConfigError when nothing can be compiled for this device."""
    if problem := compiler_problem(device):
        raise ConfigError(problem, "Install it, or take --train.compile auto.")


def compile_blocks(model: Transformer) -> None:
    """Makes each block run compiled where a gradient is wanted; names of weights stay as they are."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "seedbed" / "compiled"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))  # the default does not survive a reboot
    torch._dynamo.config.recompile_limit = SHAPES
    for module in model.modules():
        if isinstance(module, Experts):
            # How many rows an expert computes changes at every step, and what looks at routers hooks into them.
            setattr(module, "forward", torch.compiler.disable(module.forward))  # noqa: B010 (no plain assignment)
    for block in model.blocks:
        # Each shape by itself: what one kernel for all shapes computes would depend on which shape came first.
        block.forward = functools.partial(_run, torch.compile(block.forward, dynamic=False), block.forward)


def _run(compiled: Callable[..., Any], eager: Callable[..., Any], *arguments: Any) -> Any:
    """Compiled only in training: validation and generation bring new shapes all the time."""
    return (compiled if torch.is_grad_enabled() else eager)(*arguments)
