"""How many rows each optimizer step takes, and so with which sample it begins.

Both are pure functions of the step, as the samples are of their index: a run that goes on counts nothing anew. Growing
batches do the work of falling rates at the end of a run (Smith et al. 2018, arXiv:1711.00489), and at its beginning,
where gradients agree with one another, small ones do as well with fewer tokens (McCandlish et al. 2018,
arXiv:1812.06162).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence


class BatchSchedule:
    """Batches of a size that changes at given steps."""

    def __init__(self, phases: Sequence[tuple[int, int]]):
        """`phases` are (first step, rows of each step), the first of them from step 0, one after the other."""
        self.steps = [first for first, _ in phases]
        self.rows = [rows for _, rows in phases]
        self.samples = [0]
        """Before each phase."""
        for number in range(1, len(phases)):
            length = self.steps[number] - self.steps[number - 1]
            self.samples.append(self.samples[-1] + length * self.rows[number - 1])

    def size(self, step: int) -> int:
        """Rows of this step, counted from 0."""
        return self.rows[bisect_right(self.steps, step) - 1]

    def first(self, step: int) -> int:
        """The sample that this step begins with: the rows of all steps before."""
        phase = bisect_right(self.steps, step) - 1
        return self.samples[phase] + (step - self.steps[phase]) * self.rows[phase]

    def steps_for(self, samples: float) -> float:
        """Steps that take so many samples; the last of them may take a part of its own."""
        phase = bisect_right(self.samples, samples) - 1
        return self.steps[phase] + (samples - self.samples[phase]) / self.rows[phase]
