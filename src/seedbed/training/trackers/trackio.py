"""Trackio: a database below TRACKIO_DIR, or where trackio keeps them; `trackio show --project seedbed` shows it."""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from collections.abc import Mapping

import trackio

from seedbed.training.trackers.tracker import TrackedRun, Tracker


class Trackio(Tracker):
    def __init__(self, run: TrackedRun):
        # A run is known by its name there, and many a folder is called "run".
        self.id = run.id or f"{run.name}-{uuid.uuid4().hex[:8]}"
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
            self.run = trackio.init(
                project=os.environ.get("TRACKIO_PROJECT", "seedbed"),
                name=self.id,
                config=dict(run.config),
                resume="allow",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )
        trackio.context_vars.current_run.set(None)  # else it says on stdout, when Python ends, that the run has

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def text(self, step: int, name: str, text: str) -> None:
        self.run.log({name: trackio.Markdown(text)}, step=step)

    def close(self, finished: bool) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self.run.finish()
