"""Calls for a person when a run goes wrong: a spike of the loss, a stall, numbers that are not finite."""

from __future__ import annotations

import http.client
import json
import logging
import os
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from seedbed.errors import Alarm, ConfigError
from seedbed.training.observers.config import AlertsConfig
from seedbed.training.observers.observer import Observer
from seedbed.training.rollback import WINDOW, exceeded_median

if TYPE_CHECKING:
    from seedbed.training.trainer import StepReport, Trainer

logger = logging.getLogger(__name__)

SPIKE, STALL, NONFINITE = "spike", "stall", "nonfinite"

EXIT_CODES = {SPIKE: 3, STALL: 4, NONFINITE: 5}


class Alerts(Observer):
    """Each trouble is told once, when it begins; a second time only after it was over."""

    def __init__(self, config: AlertsConfig, leave: Callable[[int], object] = os._exit):
        """`leave` ends the process that a stall holds. ConfigError when the webhook's variable is empty."""
        self.config, self.leave = config, leave
        self.address = None
        if config.webhook is not None:
            self.address = os.environ.get(config.webhook)
            if not (self.address or "").startswith(("http://", "https://")):
                raise ConfigError(f"alerts.webhook: the variable {config.webhook} holds no http:// or https:// address")
        self.losses: deque[float] = deque(maxlen=WINDOW + 1)
        self.in_trouble: set[str] = set()
        self.run, self.step = "", 0
        self.beat = time.monotonic()
        self.over = threading.Event()
        self.watchdog: threading.Thread | None = None

    def begin(self, trainer: Trainer[Any]) -> None:
        self.run, self.step = trainer.run.resolve().name, trainer.progress.step
        if self.config.stall is not None:
            self._alive()
            self.watchdog = threading.Thread(target=self.watch, args=(self.config.stall,), daemon=True, name="watchdog")
            self.watchdog.start()

    def end(self, trainer: Trainer[Any]) -> None:
        self.over.set()

    def before_update(self, trainer: Trainer[Any], norm: float) -> None:
        self._alive()

    def recorded(self, trainer: Trainer[Any], name: str, record: Mapping[str, Any]) -> None:
        self._alive()

    def after_step(self, trainer: Trainer[Any], report: StepReport) -> None:
        self._alive()
        self.step = trainer.progress.step
        if not report.overflowed:
            self._check(NONFINITE, not report.applied, "the gradient is not finite", self.config.on_nonfinite)
        if report.applied and report.tally.units:
            self._check_loss(report.tally.sum / report.tally.units)

    def _check_loss(self, loss: float) -> None:
        self.losses.append(loss)
        if self.config.spike is not None:
            median = exceeded_median(self.losses, self.config.spike)
            said = f"the loss is {loss:.4g}, its median was {median or 0.0:.4g}"
            self._check(SPIKE, median is not None, said, self.config.on_spike)

    def watch(self, seconds: float) -> None:
        """The watchdog: looks four times in each span until the run is over."""
        while not self.over.wait(seconds / 4):
            idle = time.monotonic() - self.beat
            self._check(STALL, idle > seconds, f"nothing has happened for {idle:.0f} s", self.config.on_stall)

    def _alive(self) -> None:
        self.beat = time.monotonic()

    def _check(self, kind: str, troubled: bool, what: str, act: str) -> None:
        begins = troubled and kind not in self.in_trouble
        (self.in_trouble.add if troubled else self.in_trouble.discard)(kind)
        if not begins or act == "off":
            return
        logger.warning("alert, %s at step %d: %s", kind, self.step, what)
        if self.address is not None:
            self._post(kind, what)
        if act == "stop":
            self._stop(kind, what)

    def _stop(self, kind: str, what: str) -> None:
        code = EXIT_CODES[kind]
        if kind == STALL:  # the thread that trains does not answer
            logger.error("ending the process, exit code %d", code)
            logging.shutdown()
            self.leave(code)
        else:
            problem = f"{what}, at step {self.step}: alerts.on_{kind} is stop"
            raise Alarm(problem, "The last checkpoint is untouched; the same command goes on from it.", code)

    def _post(self, kind: str, what: str) -> None:
        """A service that does not answer, or not to the end, costs its timeout and a line in the log."""
        assert self.address is not None
        told = {"run": self.run, "alert": kind, "step": self.step, "text": f"{self.run}: {what}"}
        request = urllib.request.Request(
            self.address, json.dumps(told).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        problems = ["no answer in time"]

        def post() -> None:
            try:
                with urllib.request.urlopen(request, timeout=self.config.webhook_timeout):
                    problems.clear()
            except (OSError, ValueError, http.client.HTTPException) as error:
                problems[0] = type(error).__name__  # an address may be wrong in many ways; it is not said in any

        # urllib's timeout is for each byte that is waited for; this one is for all of it.
        posting = threading.Thread(target=post, daemon=True, name="webhook")
        posting.start()
        posting.join(self.config.webhook_timeout)
        if problems:
            logger.warning("the webhook in %s could not be told: %s", self.config.webhook, problems[0])
