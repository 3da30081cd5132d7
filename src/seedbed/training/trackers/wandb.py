"""Weights & Biases. Without a key it writes into the run's folder, for `wandb sync` later; it never asks for one."""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import wandb

from seedbed.training.trackers.tracker import Histogram, TrackedRun, Tracker

HOST = "api.wandb.ai"


class WeightsAndBiases(Tracker):
    def __init__(self, run: TrackedRun):
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "seedbed"),
            name=run.name,
            id=run.id,
            resume="allow",
            mode=_mode(),
            dir=str(run.folder),
            config=dict(run.config),
            # The console may show anything, and neither code nor machine are its business.
            settings=wandb.Settings(console="off", silent=True, disable_code=True, disable_git=True, init_timeout=30),
        )
        self.id = self.run.id

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        # A step that was told before the run went back is left out there: its numbers are the same bits,
        # or after a rollback those of the way that was left.
        self.run.log(dict(values), step=step)

    def text(self, step: int, name: str, text: str) -> None:
        self.run.log({name: wandb.Html(text, inject=False)}, step=step)

    def histograms(self, step: int, found: Mapping[str, Histogram]) -> None:
        drawn = {name: wandb.Histogram(np_histogram=(h.counts, h.edges)) for name, h in found.items()}
        self.run.log(drawn, step=step)

    def close(self, finished: bool) -> None:
        self.run.finish(exit_code=0)


def _mode() -> Any:
    """WANDB_MODE when it is set; else online where a key is known, offline where a person would be asked for one."""
    if mode := os.environ.get("WANDB_MODE"):
        return mode
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "")).hostname or HOST
    try:
        known = netrc.netrc().authenticators(host)
    except (OSError, netrc.NetrcParseError):
        known = None
    return "online" if known or os.environ.get("WANDB_API_KEY") else "offline"
