"""Trackers hear what the run's own files hold, keep its identity, and never cost it anything."""

from __future__ import annotations

import json
import re
import threading

import pytest
import torch

from seedbed.errors import ConfigError, CorruptionError
from seedbed.training.trackers import trackers
from seedbed.training.trackers.tracker import Histogram, Tracker
from seedbed.training.trackers.trackers import Trackers, scrubbed
from tests.tiny import random_rows, records, tiny_run, tiny_trainer


class Heard(Tracker):
    """A tracker that remembers; what is in `fails` it cannot do."""

    fails: frozenset[str] = frozenset()
    made: list[Heard]

    def __init__(self, run):
        self.run, self.id = run, run.id or "number 1"
        self.heard: list[tuple] = []
        self._note("open")
        self.made.append(self)

    def _note(self, what, *said):
        if what in self.fails:
            raise ConnectionError(f"no route to https://me:a-pass-word@tracker.example/{what}?key=swordfish")
        self.heard.append((what, *said))

    def scalars(self, step, values):
        self._note("scalars", step, dict(values))

    def text(self, step, name, text):
        self._note("text", step, name, text)

    def histograms(self, step, found):
        self._note("histograms", step, dict(found))

    def graph(self, model, tokens_BT):
        self._note("graph", tuple(tokens_BT.shape))

    def close(self, finished):
        self._note("close", finished)


@pytest.fixture
def heard(monkeypatch):
    """The class that stands for wandb."""
    monkeypatch.setattr(Heard, "made", [], raising=False)
    monkeypatch.setattr(Heard, "fails", frozenset())
    monkeypatch.setitem(trackers.KINDS, "wandb", ("trackers", "Heard"))
    monkeypatch.setattr(trackers, "Heard", Heard, raising=False)
    return Heard


def test_a_tracker_hears_every_number_that_the_files_hold(heard, tmp_path):
    trainer = tiny_trainer(tmp_path, validation=random_rows(4), steps=2, observers=[Trackers(["wandb"], {"lr": 1})])
    trainer.train()
    (tracker,) = heard.made
    assert tracker.run.config == {"lr": 1} and tracker.run.name == tmp_path.name
    told = [(step, name, value) for what, step, values in tracker.heard[2:-1] for name, value in values.items()]
    written = [
        (record["step"], f"{file}/{key}", value)
        for file in ("metrics", "timings")
        for record in records(tmp_path, f"{file}.jsonl")
        for key, value in record.items()
        if key != "step"
    ]
    assert sorted(told) == sorted(written)
    assert [what for what, *_ in tracker.heard][:2] == ["open", "graph"] and tracker.heard[-1] == ("close", True)


def test_samples_are_told_as_text(heard, tmp_path):
    trainer = tiny_trainer(tmp_path, steps=1, observers=[Trackers(["wandb"], {})])
    with trainer.observers.watching(trainer):
        trainer.record("samples", {"prompt": "Once", "text": " upon"})
    assert ("text", 0, "samples", "**Once** upon") in heard.made[0].heard


def test_histograms_of_gradients_and_weights_come_at_their_steps(heard, tmp_path):
    trainer = tiny_trainer(tmp_path, steps=3, observers=[Trackers(["wandb"], {}, histograms_every=2)])
    trainer.train()
    found = [said for what, *said in heard.made[0].heard if what == "histograms"]
    names = [name for name, _ in trainer.model.named_parameters()]
    assert [step for step, _ in found] == [2, 2]
    assert found[0][1].keys() == {f"gradients/{name}" for name in names}
    assert found[1][1].keys() == {f"weights/{name}" for name in names}
    weight = trainer.model.embedding.weight
    assert found[1][1]["weights/embedding.weight"].counts.sum() == weight.numel()


def test_a_run_that_goes_on_is_the_same_run_to_its_tracker(heard, tmp_path):
    tiny_trainer(tmp_path, steps=2, observers=[Trackers(["wandb"], {})]).train()
    again = tiny_trainer(tmp_path, steps=4, observers=[Trackers(["wandb"], {})])
    again.resume()
    again.train()
    first, second = heard.made
    assert first.run.id is None and (second.run.id, second.run.step) == ("number 1", 2)
    assert not any(what == "graph" for what, *_ in second.heard)
    assert json.loads((tmp_path / "tracking" / "runs.json").read_bytes()) == {"wandb": "number 1"}


@pytest.mark.parametrize("where", ["open", "graph", "scalars", "close"])
def test_a_tracker_that_fails_is_told_of_once_and_training_goes_on(where, heard, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(heard, "fails", frozenset({where}))
    monkeypatch.setenv("TRACKER_API_KEY", "swordfish")
    trainer = tiny_trainer(tmp_path, steps=3, observers=[Trackers(["wandb"], {})])
    assert trainer.train() and trainer.progress.step == 3
    (line,) = [line for line in caplog.messages if "wandb" in line]
    assert line.startswith("wandb is left out from here on, the run goes on without it: ConnectionError: no route")
    assert "swordfish" not in caplog.text and "a-pass-word" not in caplog.text


def test_a_tracker_that_does_not_end_is_left_behind(heard, tmp_path, monkeypatch, caplog):
    never = threading.Event()
    monkeypatch.setattr(trackers, "PATIENCE", 0.01)
    monkeypatch.setattr(heard, "close", lambda self, finished: never.wait(60))
    tiny_trainer(tmp_path, steps=1, observers=[Trackers(["wandb"], {})]).train()
    never.set()
    assert "wandb did not take all that was to be told" in caplog.text


def test_a_file_of_identities_that_is_broken_says_so(heard, tmp_path):
    (tmp_path / "tracking").mkdir()
    (tmp_path / "tracking" / "runs.json").write_text("{")
    with pytest.raises(CorruptionError, match=r"runs\.json cannot be read"):
        tiny_trainer(tmp_path, observers=[Trackers(["wandb"], {})]).train()


def test_a_tracker_whose_package_is_missing_says_how_to_bring_it(tokens, tmp_path, monkeypatch):
    find = trackers.importlib.util.find_spec
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None if name == "trackio" else find(name))
    with pytest.raises(ConfigError, match="track: trackio needs the package trackio") as error:
        tiny_run(tokens, tmp_path / "run", "--train.steps=1", "--track=[trackio]")
    assert re.search(r"pip install .*\[track\]", error.value.fix or "")
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_nobody_knows_is_refused(tokens, tmp_path):
    with pytest.raises(ConfigError, match="abacus"):
        tiny_run(tokens, tmp_path / "run", "--train.steps=1", "--track=[abacus]")


def test_what_is_secret_is_taken_out_of_what_is_said(monkeypatch):
    for name, value in {"WANDB_API_KEY": "k-123456", "mlflow_tracking_password": "open", "USER_NAME": "anna"}.items():
        monkeypatch.setenv(name, value)
    said = scrubbed("anna: 401 for k-123456\nat https://anna:open@host/x, open")
    assert said == "anna: 401 for … at https://…@host/x, …"


def test_a_histogram_counts_every_number():
    values = torch.tensor([[-1.0, 0.0], [0.25, 1.0]])
    spread = Histogram.of(values, bins=2)
    assert spread.counts.tolist() == [1, 3] and spread.edges.tolist() == [-1, 0, 1]
    assert (spread.sum, spread.sum_of_squares) == (0.25, 2.0625)
