"""What a person sees while a run goes on: one live line in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

PLAIN_INTERVAL = 30.0
"""Seconds between two lines where there is no terminal."""

WINDOW = 50
"""Steps over which speed is averaged."""

WIDE = 110
"""Columns from which on there is room for more than step, loss, speed and time left."""

TIME = len(" left 00:00:00")


class Display:
    """Steps, loss, tokens a second, share of the device's peak, time left. Writes to stderr: stdout is for results."""

    def __init__(
        self, title: str, *, flops_per_token: float, peak_flops: float, shows_mfu: bool = True, quiet: bool = False
    ):
        """`flops_per_token` of training, `peak_flops` a second of the device: together they give MFU, model FLOPs
        utilisation (Chowdhery et al. 2022, arXiv:2204.02311, appendix B), shown if `shows_mfu`, noted in any case."""
        self.title = title
        self.flops_per_token = flops_per_token
        self.peak_flops = peak_flops
        self.shows_mfu = shows_mfu
        self.console = Console(stderr=True, quiet=quiet)
        self.recent: deque[tuple[int, float]] = deque(maxlen=WINDOW)
        self.loss: float | None = None
        self.validation_text = ""
        self.bar: Progress | None = None
        self.last_line = time.monotonic()
        self.steps = self.done = 0

    @contextlib.contextmanager
    def open(self, steps: int, done: int) -> Iterator[None]:
        """Shows the run while the block lasts; at last how it stands, with a validation after the last step."""
        self.steps = steps
        if not (self.console.is_terminal and sys.stderr.isatty()):
            yield
            if self.recent:
                self.line()
            return
        wide = self.console.width >= WIDE
        columns: list[ProgressColumn] = [TextColumn("{task.description}")]
        columns += [BarColumn()] if wide else []
        columns += [MofNCompleteColumn(), TextColumn("{task.fields[text]}")]
        columns += [TimeElapsedColumn()] if wide else []
        columns += [TextColumn("left"), TimeRemainingColumn()]
        with Progress(*columns, console=self.console) as self.bar:
            self.task = self.bar.add_task(self.title, total=steps, completed=done, text="")
            yield
            if self.recent:
                self.bar.update(self.task, text=self.text(self.console.width))
        self.bar = None

    def step(self, step: int, loss: float | None, tokens: int, seconds: float) -> None:
        """One more optimizer step is done."""
        self.recent.append((tokens, seconds))
        self.done = step
        if loss is not None:
            self.loss = loss if self.loss is None else self.loss + 0.05 * (loss - self.loss)
        if self.bar is not None:
            self.bar.update(self.task, completed=step, text=self.text(self.console.width))
        elif time.monotonic() - self.last_line > PLAIN_INTERVAL:
            self.line()

    def line(self) -> None:
        """How it stands, where no bar shows it."""
        self.last_line = time.monotonic()
        self.console.print(f"{self.title} step {self.done}/{self.steps}  {self.text()}", highlight=False)

    def validation(self, metrics: dict[str, float]) -> None:
        """A validation is done."""
        if "bits_per_byte" in metrics:
            self.validation_text = f"val {metrics['bits_per_byte']:.3f} bits/byte"
        elif "accuracy" in metrics:
            self.validation_text = f"val {metrics['loss']:.3f}, {metrics['accuracy']:.1%} right"
        elif "margin" in metrics:
            self.validation_text = f"val {metrics['loss']:.3f}, margin {metrics['margin']:.3f}"
        elif "reward" in metrics:
            self.validation_text = f"val reward {metrics['reward']:.3f}"
        else:
            self.validation_text = f"val {metrics['loss']:.3f} nats/token"

    def text(self, columns: int = WIDE) -> str:
        """Loss, validation, speed, and MFU on a wide line: as many of them, in this order, as leave step and time left
        whole on a line of so many columns."""
        speed = self.speed()
        parts = ["" if self.loss is None else f"loss {self.loss:.3f}", self.validation_text]
        parts.append(f"{speed['tokens_per_s']:,.0f} tok/s")
        if self.shows_mfu and columns >= WIDE:
            parts.append(f"MFU {speed['mfu']:.0%}")
        room = columns - len(f"{self.title} {self.steps}/{self.steps} ") - TIME
        text = ""
        for part in filter(None, parts):
            longer = f"{text}  {part}" if text else part
            if columns >= WIDE or len(longer) <= room:
                text = longer
        return text

    def speed(self) -> dict[str, float]:
        """Over the last steps: tokens a second, and the share of the device's measured peak that they use."""
        tokens = sum(tokens for tokens, _ in self.recent)
        seconds = sum(seconds for _, seconds in self.recent) or 1e-9
        rate = tokens / seconds
        return {
            "tokens_per_s": rate,
            "seconds_per_step": seconds / len(self.recent),
            "mfu": rate * self.flops_per_token / self.peak_flops,
        }
