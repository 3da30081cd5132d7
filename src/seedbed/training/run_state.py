"""Where a run stands, in plain numbers."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_FIELDS = ("step", "units", "skipped_in_row", "best_step", "best_loss", "validations_without_gain")
"""What the state of every run has; of fields that came later, files of earlier versions have the defaults."""


@dataclass(frozen=True)
class RunState:
    """Where a run stands: all of its state that is not a tensor."""

    step: int = 0
    """Optimizer steps done; the sample that comes next follows from it."""

    units: int = 0
    """Units of loss seen, such as target tokens."""

    skipped_in_row: int = 0
    """Steps left out in a row because a gradient was not finite."""

    best_step: int | None = None
    """Step of the lowest validation loss so far."""

    best_loss: float | None = None
    """The lowest validation loss so far."""

    validations_without_gain: int = 0
    """Validations in a row that were not the best."""

    loss_scale: float | None = None
    """What the next step multiplies its loss with under fp16; None before the first step and in other precisions."""

    steps_at_scale: int = 0
    """Steps without overflow since the scale changed."""

    recent_losses: tuple[float, ...] = ()
    """Of the last steps: what a spike of the loss is measured against."""

    skipped_batches: int = 0
    """Batches left out when the run went back: step s takes what would have been the batch of this many steps later."""

    rollbacks: int = 0
    """How often the run has gone back."""

    @property
    def validated(self) -> bool:
        """Whether there has been a validation."""
        return self.best_step is not None or self.validations_without_gain > 0
