"""The settings of a run: written down when it begins, compared when it is given again."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from seedbed.configuration import load_config, save_config
from seedbed.errors import ConfigError, DataError
from seedbed.optim.schedules import rate_multiple
from seedbed.training.checkpoint import Checkpoints
from seedbed.training.config import StageConfig, TrainConfig
from seedbed.training.consolidation import FISHER
from seedbed.training.run_log import LOG

logger = logging.getLogger(__name__)

C = TypeVar("C", bound=StageConfig)

CONFIG = "config.yaml"
"""In a run's folder: its exact settings, its budget as a number of steps."""

REFERENCE = "reference"
"""In a run's folder: what the model as it began makes of the data, of runs that compare with it."""

FREE = (
    *("device", "devices", "parallel", "shard_group", "tensor_parallel", "micro_batch"),
    *("log_every", "recompute", "checkpoint"),
)
"""Settings of `train` that a run may go on with differently: they move no weight, up to rounding and to what dropout
leaves out."""

VALIDATION = ("validate_every", "validation_rows")
"""Settings of `train` that only look on, too, unless the run is selected or ended by what they find."""

WATCHING = ("track", "log", "statistics", "samples", "probes", "alerts", "profile")
"""Settings of a stage that only look on: a run may go on with others."""

LENGTH = ("train.steps", "train.epochs", "train.minutes")
"""Settings by which a run can be made longer."""


def check_beginning(config: StageConfig) -> None:
    """DataError or ConfigError when no run can begin with these settings in `config.out`."""
    budgets = config.train.budgets
    if config.resume not in ("auto", "never"):
        raise DataError(f"{config.out} holds no run that could go on from {config.resume}")
    if len(budgets) != 1:
        problem = f"a run has one budget, not {' and '.join(budgets)}" if budgets else "train needs a budget"
        raise ConfigError(problem, "Give --train.steps, --train.epochs or --train.minutes.")
    if (config.out / CONFIG).exists() or not config.out.is_dir():
        return
    # A run that died before it had settings may have begun its log, and found out what it is to be compared with.
    before = (LOG, FISHER, REFERENCE)
    if any(not entry.name.startswith(".") and entry.name not in before for entry in config.out.iterdir()):
        raise ConfigError(f"{config.out} is not empty and holds no run", "Choose another --out.")


def settle(config: C, count: Callable[[C], TrainConfig]) -> C:
    """The settings that the run goes by; `count` turns a budget into steps. Nothing is written: see `write_down`.

    A run that goes on has those it began with. One that died before its first checkpoint begins anew with what is given
    now, and one of which only the length differs becomes longer. Any other difference is a ConfigError.
    """
    path = config.out / CONFIG
    if not path.exists():
        return replace(config, train=count(config))
    if config.resume == "never":
        raise ConfigError(f"{config.out} holds a run and resume is never", "Choose another --out.")
    earlier = load_config(path, type(config))
    differences = _differences(config, earlier)
    if not differences:
        return _go_on(config, earlier)
    if not (Checkpoints(config.out).steps() or (config.out / "model").exists()):
        check_beginning(config)
        logger.warning("%s has no complete checkpoint: it begins anew, with the settings given now", config.out)
        return replace(config, train=count(config))
    if set(differences) <= set(LENGTH) and len(config.train.budgets) == 1:
        return _lengthen(config, earlier, count)
    key, (began, now) = next((item for item in differences.items() if item[0] not in LENGTH), min(differences.items()))
    raise _refusal(config, key, began, now)


def write_down(config: StageConfig) -> None:
    """Into the folder of a run that begins or becomes longer, once nothing is left that could refuse its settings."""
    path = config.out / CONFIG
    if not path.exists() or _differences(config, load_config(path, type(config))):
        save_config(path, config)


def _go_on(config: C, earlier: C) -> C:
    """What the run began with, but for what may differ."""
    free = {key: getattr(config.train, key) for key in _free(earlier)}
    free["validate_every"] = config.train.validate_every or earlier.train.validate_every  # as it was counted out
    watching = {key: getattr(config, key) for key in WATCHING}
    return replace(earlier, out=config.out, resume=config.resume, train=replace(earlier.train, **free), **watching)


def _free(earlier: StageConfig) -> tuple[str, ...]:
    """Those of `train` with which this run may go on differently."""
    reads = earlier.train.select == "best" or earlier.train.patience is not None
    return FREE if reads else FREE + VALIDATION


def _lengthen(config: C, earlier: C, count: Callable[[C], TrainConfig]) -> C:
    """The settings of the longer run. Its schedule is that of its new length from the next step on."""
    longer = _go_on(config, earlier)
    # An interval between validations that was counted from minutes is counted again.
    interval = config.train.validate_every if earlier.train.minutes else longer.train.validate_every
    budget = {key: getattr(config.train, key) for key in ("steps", "epochs", "minutes")}
    longer = replace(longer, train=replace(longer.train, **budget, validate_every=interval))
    longer = replace(longer, train=count(longer))
    before, after = earlier.train.steps, longer.train.steps
    assert before is not None and after is not None  # counted when the run began, and now
    if after < before and (config.train.minutes or 0) > (earlier.train.minutes or math.inf):
        # More minutes of a machine that is slower now: they are no wish for fewer steps.
        longer, after = replace(longer, train=replace(longer.train, steps=before)), before
    if after < before:
        raise _refusal(config, "train.steps", before, after)
    checkpoints = Checkpoints(config.out)
    newest = max(checkpoints.steps(), default=0)
    done = newest if config.resume == "auto" else checkpoints.step_of(Path(config.resume))
    rates = [rate_multiple(longer.schedule, min(done, steps), steps) for steps in (before, after)]
    logger.warning(
        "%s becomes longer, from %d to %d steps; at step %d its rates go from %.3g to %.3g of their peak",
        *(config.out, before, after, done, *rates),
    )
    return longer


def _refusal(config: StageConfig, key: str, began: Any, now: Any) -> ConfigError:
    return ConfigError(
        f"{config.out} was begun with {key} {began}, now it is {now}",
        "Give the same settings to go on with it (more --train.steps make it longer), or another --out for a new run.",
    )


def _differences(config: C, earlier: C) -> dict[str, tuple[Any, Any]]:
    """What a run was begun with and what is given now, by key, where they differ and may not.

    A path counts as the place it leads to, however it is written.
    """
    free = ("out", "resume", "data.workers", *(f"train.{key}" for key in _free(earlier)))
    began, found = plain(earlier.resolve(), paths=True), {}
    for key, value in plain(config.resolve(), paths=True).items():
        counted = key in ("train.steps", "train.validate_every") and value is None  # counted out from epochs or minutes
        counted |= key == "train.compile" and value == "auto"  # as it was chosen when the run began
        looks = key.partition(".")[0] in WATCHING
        if not (counted or looks or key in free or key.startswith("train.checkpoint.")) and began.get(key) != value:
            found[key] = (began.get(key), value)
    return found


def plain(config: Any, prefix: str = "", *, paths: bool = False) -> dict[str, Any]:
    """Every setting by its dotted key. Without `paths`: what a run does, not where."""
    found: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            found |= plain(value, f"{prefix}{item.name}.", paths=paths)
        elif isinstance(value, Path):
            found |= {prefix + item.name: str(value.resolve())} if paths else {}
        elif isinstance(value, list) and any(isinstance(entry, Path) for entry in value):
            found |= {prefix + item.name: [str(entry.resolve()) for entry in value]} if paths else {}
        elif isinstance(value, list) and any(map(dataclasses.is_dataclass, value)):
            found[prefix + item.name] = [plain(entry, paths=paths) for entry in value]
        else:
            found[prefix + item.name] = value
    return found
