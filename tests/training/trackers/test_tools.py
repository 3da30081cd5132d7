"""The real tools, each writing into a folder, read back through its own reader."""

from __future__ import annotations

import os
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from seedbed.training.trackers.tracker import Histogram, TrackedRun
from tests.tiny import random_rows, records, tiny_model, tiny_run

SAMPLES = ("--samples.every=2", "--samples.prompts=[the seed]", "--samples.max_tokens=3")
ALL = ("--statistics.every=2", "--statistics.histograms=true", *SAMPLES)
LONGER = ("--train.checkpoint.steps=1", "--train.steps=4")


@pytest.fixture(autouse=True)
def nothing_leaves(tmp_path, monkeypatch):
    """No account, no server, no folder of the person who runs the tests."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "MLFLOW_TRACKING_URI", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / ".netrc"))
    (tmp_path / "home").mkdir()


def twice(tokens: Path, run: Path, tool: str) -> tuple[Path, dict[int, float]]:
    """A run that was taken up again; its folder of tracking, and the losses that were written down."""
    tiny_run(tokens, run, "--train.steps=2", "--train.checkpoint.steps=1", f"--track=[{tool}]", *ALL)
    tiny_run(tokens, run, *LONGER, f"--track=[{tool}]", *ALL)
    return run / "tracking", {line["step"]: line["loss"] for line in records(run) if "loss" in line}


def test_tensorboard_shows_scalars_histograms_graph_and_samples(tokens, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, losses = twice(tokens, tmp_path / "run", "tensorboard")
    shown = EventAccumulator(str(folder / "tensorboard"), size_guidance={"tensors": 0, "histograms": 0}).Reload()
    assert {event.step: event.value for event in shown.Scalars("metrics/loss")} == pytest.approx(losses)
    assert len(shown.Scalars("metrics/loss")) == 4
    assert "statistics/gradient_norm/matrix" in shown.Tags()["scalars"] and shown.Tags()["graph"]
    assert {"weights/embedding.weight", "gradients/embedding.weight"} <= set(shown.Tags()["histograms"])
    assert "embedding" in str(shown.Graph())
    (sample, *_) = records(tmp_path / "run", "samples.jsonl")
    texts = shown.Tensors("samples/text_summary")
    assert texts[0].tensor_proto.string_val[0].decode() == f"**the seed**{sample['text']}"


def test_mlflow_keeps_numbers_settings_and_samples_in_the_run_folder(tokens, tmp_path):
    from mlflow import MlflowClient

    folder, losses = twice(tokens, tmp_path / "run", "mlflow")
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("seedbed").experiment_id])
    history = client.get_metric_history(run.info.run_id, "metrics/loss")
    assert {metric.step: metric.value for metric in history} == losses
    assert run.data.params["train.batch"] == "4" and run.info.status == "FINISHED"
    (text,) = [path.path for path in client.list_artifacts(run.info.run_id, "samples")][:1]
    assert "the seed" in Path(client.download_artifacts(run.info.run_id, text, str(tmp_path))).read_text()
    assert not (tmp_path / "mlruns").exists()


def test_weights_and_biases_writes_offline_without_asking_for_a_key(tokens, tmp_path):
    folder, losses = twice(tokens, tmp_path / "run", "wandb")
    files = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2
    found: dict[int, float] = {}
    ids = set()
    for file in files:
        for record in wandb_records(file):
            ids |= {record.run.run_id} if record.HasField("run") else set()
            items = {"/".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
            if "metrics/loss" in items:
                found[int(record.history.step.num)] = float(items["metrics/loss"])
    assert found == pytest.approx(losses)
    assert len(ids) == 1


def wandb_records(path: Path):
    """What the file holds: LevelDB's log format behind a header of seven bytes, in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    raw, place, parts = path.read_bytes(), 7, b""
    assert raw[:4] == b":W&B"
    while place + 7 <= len(raw):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
        length, kind = struct.unpack_from("<HB", raw, place + 4)
        parts += raw[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


@pytest.mark.parametrize(
    ("variables", "netrc", "mode"),
    [
        ({}, "", "offline"),
        ({"WANDB_API_KEY": "k"}, "", "online"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}, "", "offline"),
        ({}, "machine api.wandb.ai login user password k", "online"),
        ({"WANDB_BASE_URL": "https://own.example"}, "machine api.wandb.ai login user password k", "offline"),
        ({}, "machine", "offline"),
    ],
)
def test_weights_and_biases_goes_online_only_where_a_key_is_known(variables, netrc, mode, tmp_path, monkeypatch):
    from seedbed.training.trackers.wandb import _mode

    (tmp_path / "home" / ".netrc").write_text(netrc)
    (tmp_path / "home" / ".netrc").chmod(0o600)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert _mode() == mode


TRACKIO = """
import sys
from pathlib import Path
from tests.training.trackers.test_tools import twice
_, losses = twice(Path(sys.argv[1]), Path("run"), "trackio")
print(losses)
"""


def test_trackio_keeps_one_run_and_says_nothing_on_stdout(tokens, tmp_path):
    """In a process of its own, because trackio reads its folder's name when it is imported."""
    env = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}
    root = Path(__file__).parents[3]
    env["PYTHONPATH"] = os.pathsep.join([str(root), env.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", TRACKIO, str(tokens)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    losses = eval(done.stdout)  # and nothing else
    with sqlite3.connect(tmp_path / "trackio" / "seedbed.db") as database:
        rows = database.execute(
            "select run_name, step, json_extract(metrics, '$.metrics/loss') from metrics"
        ).fetchall()
    found = {step: loss for _, step, loss in rows if loss is not None}
    assert found == pytest.approx(losses) and len({name for name, *_ in rows}) == 1
    assert rows[0][0].startswith("run-")


def test_a_server_that_is_not_there_costs_mlflow_a_line_and_not_the_run(tokens, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hidden@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert tiny_run(tokens, tmp_path / "run", "--train.steps=2", "--track=[mlflow]")["finished"]
    assert sum("mlflow is left out" in line for line in caplog.messages) == 1
    for file in ("training.log", "config.yaml", "result.json"):
        assert "hidden" not in (tmp_path / "run" / file).read_text()


def test_histograms_are_what_tensorboard_reads(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from seedbed.training.trackers.tensorboard import TensorBoard

    tracker = TensorBoard(TrackedRun("run", tmp_path, {}, None, 0))
    tracker.histograms(3, {"weights": Histogram.of(torch.tensor([-1.0, 0.0, 0.25, 1.0]), bins=2)})
    tracker.graph(tiny_model(), random_rows(1).tokens_NT)
    tracker.close(True)
    (event,) = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Histograms("weights")
    assert (event.step, event.histogram_value.num, event.histogram_value.bucket) == (3, 4, [1.0, 3.0])
