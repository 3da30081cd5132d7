"""MLflow: the server that MLFLOW_TRACKING_URI names, else a database of its own in the run's folder.

`mlflow ui --backend-store-uri sqlite:///RUN/tracking/mlflow.db` shows the latter.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.utils.async_logging.run_operations import RunOperations

from seedbed.training.trackers.tracker import TrackedRun, Tracker

LONGEST = 6000
"""Characters of a setting's value."""

MOST = 100
"""Settings that are handed over at once."""


class MLflow(Tracker):
    def __init__(self, run: TrackedRun):
        # A server that does not answer is given up in seconds, not in its default of minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # tells of every table that it makes
        address = os.environ.get("MLFLOW_TRACKING_URI")
        artifacts = None if address else (run.folder / "mlflow").resolve().as_uri()
        self.client = MlflowClient(address or f"sqlite:///{(run.folder / 'mlflow.db').resolve()}")
        self.pending: list[RunOperations | None] = []
        if run.id is not None:
            self.id = run.id
            self.client.update_run(self.id, status="RUNNING")
            return
        project = os.environ.get("MLFLOW_EXPERIMENT_NAME", "seedbed")
        experiment = self.client.get_experiment_by_name(project)
        number = experiment.experiment_id if experiment else self.client.create_experiment(project, artifacts)
        self.id = self.client.create_run(number, run_name=run.name).info.run_id
        settings = [Param(key, str(value)[:LONGEST]) for key, value in run.config.items()]
        for first in range(0, len(settings), MOST):
            self.client.log_batch(self.id, params=settings[first : first + MOST])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        self.pending.append(self.client.log_batch(self.id, metrics, synchronous=False))

    def text(self, step: int, name: str, text: str) -> None:
        self.client.log_text(self.id, text, f"{name}/step_{step:08d}.txt")

    def close(self, finished: bool) -> None:
        for operations in filter(None, self.pending):
            operations.wait()
        self.client.set_terminated(self.id, "FINISHED" if finished else "KILLED")
