"""A run that goes wrong calls for a person."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from seedbed.cli import main
from seedbed.errors import Alarm, ConfigError, SeedbedError
from seedbed.training.objective import Tally
from seedbed.training.observers.alerts import Alerts
from seedbed.training.observers.config import AlertsConfig
from seedbed.training.rollback import ENOUGH
from seedbed.training.trainer import StepReport
from tests.tiny import tiny_trainer


@pytest.fixture
def trainer(tmp_path):
    return tiny_trainer(tmp_path / "run")


@pytest.fixture
def inbox(monkeypatch):
    """What a server on this machine was posted; its address is in the variable INBOX."""
    posted: list[dict] = []

    class Inbox(BaseHTTPRequestHandler):
        def do_POST(self):
            assert self.headers["Content-Type"] == "application/json"
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *said):
            pass

    server = HTTPServer(("127.0.0.1", 0), Inbox)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    monkeypatch.setenv("INBOX", f"http://127.0.0.1:{server.server_port}/a-secret")
    yield posted
    server.shutdown()
    serving.join()
    server.server_close()


def feed(alerts: Alerts, trainer, *losses: float, applied: bool = True) -> None:
    for loss in losses:
        alerts.after_step(trainer, StepReport(Tally(2 * loss, 2), 1.0, 1.0, 4, applied))


def alerted(caplog) -> list[str]:
    return [line for line in caplog.messages if line.startswith("alert")]


def test_a_loss_far_above_the_median_is_a_spike_told_once_until_it_is_over(trainer, caplog):
    alerts = Alerts(AlertsConfig(spike=1.5))
    feed(alerts, trainer, *[2.0] * ENOUGH, 2.9, 3.1, 3.2, 2.0, 3.3)
    assert alerted(caplog) == [f"alert, spike at step 0: the loss is {loss}, its median was 2" for loss in (3.1, 3.3)]


def test_a_few_losses_make_no_median_and_a_loss_below_nought_no_spike(trainer, caplog):
    alerts = Alerts(AlertsConfig(spike=1.5))
    feed(alerts, trainer, *[2.0] * (ENOUGH - 1), 9.0)
    rewards = Alerts(AlertsConfig(spike=1.5))
    feed(rewards, trainer, *[-1.0] * ENOUGH, -0.5, 1.0)
    assert not alerted(caplog)


def test_a_spike_ends_the_run_with_its_own_exit_code_when_that_is_asked_for(trainer):
    alerts = Alerts(AlertsConfig(spike=2, on_spike="stop"))
    feed(alerts, trainer, *[2.0] * ENOUGH)
    with pytest.raises(Alarm, match=r"the loss is 5, its median was 2, at step 0: alerts\.on_spike is stop") as alarm:
        feed(alerts, trainer, 5.0)
    assert alarm.value.exit_code == 3


@pytest.mark.parametrize(("act", "lines"), [("off", 0), ("log", 2)])
def test_the_first_of_several_steps_that_are_left_out_is_told(act, lines, trainer, caplog):
    alerts = Alerts(AlertsConfig(on_nonfinite=act))
    feed(alerts, trainer, 1.0, 1.0, applied=False)
    feed(alerts, trainer, 1.0)
    feed(alerts, trainer, 1.0, applied=False)
    assert len(alerted(caplog)) == lines


def test_a_gradient_that_is_not_finite_ends_the_run_when_that_is_asked_for(trainer):
    with pytest.raises(Alarm, match="the gradient is not finite") as alarm:
        feed(Alerts(AlertsConfig(on_nonfinite="stop")), trainer, 1.0, applied=False)
    assert alarm.value.exit_code == 5


def test_the_command_line_ends_with_the_code_of_the_alert(monkeypatch, capsys):
    def run(arguments):
        raise Alarm("the loss is 5", "Look.", 3)

    monkeypatch.setattr("seedbed.cli.run", run)
    assert main([]) == 3
    assert capsys.readouterr().err == "seedbed: the loss is 5\n         Look.\n"
    assert SeedbedError.exit_code == 2


def test_an_alert_is_posted_as_json_and_its_address_is_written_nowhere(trainer, inbox, caplog):
    alerts = Alerts(AlertsConfig(spike=1.5, webhook="INBOX"))
    alerts.begin(trainer)
    feed(alerts, trainer, *[2.0] * ENOUGH, 4.0)
    text = "run: the loss is 4, its median was 2"
    assert inbox == [{"run": "run", "alert": "spike", "step": 0, "text": text}]
    assert "a-secret" not in caplog.text


def test_a_webhook_that_does_not_answer_costs_a_line_and_not_the_run(trainer, monkeypatch, caplog):
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        port = closed.server_port
    monkeypatch.setenv("NOWHERE", f"http://127.0.0.1:{port}/a-secret")
    feed(Alerts(AlertsConfig(on_nonfinite="log", webhook="NOWHERE")), trainer, 1.0, applied=False)
    assert caplog.messages[-1] == "the webhook in NOWHERE could not be told: URLError"
    assert "a-secret" not in caplog.text


def test_a_webhook_that_answers_byte_by_byte_costs_its_timeout_and_no_more(trainer, monkeypatch, caplog):
    over = threading.Event()

    class Drip(BaseHTTPRequestHandler):
        def do_POST(self):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
            for _ in range(500):
                if over.wait(0.01):
                    break
                self.wfile.write(b"x")
            over.set()

        def log_message(self, *said):
            pass

    server = HTTPServer(("127.0.0.1", 0), Drip)
    serving = threading.Thread(target=server.handle_request, daemon=True)
    serving.start()
    monkeypatch.setenv("DRIP", f"http://127.0.0.1:{server.server_port}/")
    alerts = Alerts(AlertsConfig(on_nonfinite="log", webhook="DRIP", webhook_timeout=0.2))
    feed(alerts, trainer, 1.0, applied=False)
    assert not over.is_set()  # it still drips
    over.set()
    serving.join()
    server.server_close()
    assert caplog.messages[-1] == "the webhook in DRIP could not be told: no answer in time"


@pytest.mark.parametrize("address", [None, "", "file:///etc/passwd", "hooks.example.org"])
def test_a_variable_without_an_address_is_refused_before_the_run(address, monkeypatch):
    monkeypatch.delenv("HOOK", raising=False)
    if address is not None:
        monkeypatch.setenv("HOOK", address)
    with pytest.raises(ConfigError, match="the variable HOOK holds no http"):
        Alerts(AlertsConfig(spike=2, webhook="HOOK"))


def test_an_address_in_place_of_its_variable_is_refused_and_not_repeated():
    with pytest.raises(ConfigError) as error:
        AlertsConfig(webhook="https://hooks.example.org/a-secret")
    assert "a-secret" not in str(error.value) and "name of an environment variable" in str(error.value)


def test_a_run_in_which_nothing_happens_is_a_stall_and_one_that_moves_is_none(trainer, caplog):
    left: list[int] = []
    alerts = Alerts(
        AlertsConfig(stall=0.04, on_stall="stop"), leave=lambda code: (left.append(code), alerts.over.set())
    )
    alerts.begin(trainer)
    assert alerts.over.wait(30) and left == [4]
    alerts.watchdog.join()
    assert alerted(caplog) == ["alert, stall at step 0: nothing has happened for 0 s"]
    moving = Alerts(AlertsConfig(stall=60))
    moving.begin(trainer)
    for event in (lambda: moving.before_update(trainer, 1.0), lambda: moving.recorded(trainer, "metrics", {})):
        moving.beat = 0.0
        event()
        assert time.monotonic() - moving.beat < 30
    moving.end(trainer)
    moving.watchdog.join(30)
    assert not moving.watchdog.is_alive()


def test_a_process_that_hangs_is_ended_with_the_code_of_a_stall():
    program = """
import threading
from seedbed.training.observers.alerts import Alerts
from seedbed.training.observers.config import AlertsConfig
alerts = Alerts(AlertsConfig(stall=0.1, on_stall="stop"))
threading.Thread(target=alerts.watch, args=(0.1,), daemon=True).start()
threading.Event().wait()
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 4
