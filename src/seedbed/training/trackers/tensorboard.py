"""TensorBoard: event files in the run's folder. `tensorboard --logdir RUN/tracking` shows them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from seedbed.model.transformer import Transformer
from seedbed.training.trackers.tracker import Histogram, TrackedRun, Tracker


class TensorBoard(Tracker):
    def __init__(self, run: TrackedRun):
        self.id = "tensorboard"
        # What an earlier process wrote of later steps is hidden: the run will write it anew.
        purged = None if run.id is None else run.step + 1
        self.writer = SummaryWriter(str(run.folder / self.id), purge_step=purged)
        if run.id is None:
            lines = "\n".join(f"    {key}: {value}" for key, value in run.config.items())
            self.writer.add_text("config", lines, 0)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def text(self, step: int, name: str, text: str) -> None:
        self.writer.add_text(name, text, step)

    def histograms(self, step: int, found: Mapping[str, Histogram]) -> None:
        for name, spread in found.items():
            self.writer.add_histogram_raw(
                name,
                min=spread.edges[0],
                max=spread.edges[-1],
                num=int(spread.counts.sum()),
                sum=spread.sum,
                sum_squares=spread.sum_of_squares,
                bucket_limits=spread.edges[1:].tolist(),
                bucket_counts=spread.counts.tolist(),
                global_step=step,
            )

    def graph(self, model: Transformer, tokens_BT: Tensor) -> None:
        with warnings.catch_warnings(action="ignore"), torch.no_grad():  # of all that tracing cannot follow
            model(tokens_BT)  # tables that grow at first use have grown before they are traced
            self.writer.add_graph(model, tokens_BT)

    def close(self, finished: bool) -> None:
        self.writer.close()
