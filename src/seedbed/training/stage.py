"""From what a stage brings to a finished run folder: budget, resume, the loop, the model, the card."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import logging.handlers
import math
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from seedbed.configuration import load_config, save_config
from seedbed.data.batch import BatchSource
from seedbed.devices import choose_device, gemm_peak, peak_memory_mb, set_determinism
from seedbed.errors import ConfigError, DataError
from seedbed.model.accounting import count_parameters, training_flops
from seedbed.model.config import ModelConfig
from seedbed.model.folder import TOKENIZER, save_model
from seedbed.model.transformer import Transformer
from seedbed.runs import MANIFEST, input_hash, lock, seal, words, write_atomic, write_card, write_result, writing
from seedbed.tokenizers.tokenizer import Tokenizer
from seedbed.training.chart import FILE, loss_chart
from seedbed.training.config import StageConfig, TrainConfig
from seedbed.training.display import Display
from seedbed.training.objective import Objective
from seedbed.training.trainer import Trainer

logger = logging.getLogger(__name__)

C = TypeVar("C", bound=StageConfig)

CONFIG = "config.yaml"
"""In a run's folder: its exact config."""

FREE = ("device", "log_every", "checkpoint")
"""Settings of `train` that a run may go on with differently: they move no weight, up to a device's rounding."""

VALIDATION_SEED = 0
"""Of the rows that are validated on: the same in every run, so that runs of different seeds compare."""

FEW_STEPS = 100
"""Fewer than these teach nothing, whatever the model."""

MEASURED_STEPS = 8
"""Steps that are timed to turn minutes into a step count, after two that warm the machine up."""


@dataclass(frozen=True)
class Stage:
    """What a training stage brings to the one loop."""

    name: str
    model: Callable[[], Transformer]
    """Makes the model that training starts from; the same weights at every call."""
    tokenizer: Tokenizer
    source: BatchSource[Any]
    validation: BatchSource[Any] | None
    objective: Objective[Any]
    length: int
    """Tokens of a row."""
    inputs: Mapping[str, Path]
    """Folders and files that the run is made from."""

    @functools.cached_property
    def hashes(self) -> dict[str, str]:
        """Of the inputs, by role."""
        return {role: input_hash(path) for role, path in self.inputs.items()}


def run_stage(stage: Stage, config: C) -> dict[str, Any]:
    """Trains, or goes on training, in the folder `config.out`; the result that `result.json` holds.

    The folder is complete when its manifest is there. A run that was asked to stop is saved, returns with
    `"finished": false`, and goes on when the same command is given again.
    """
    run = config.out
    choose_device(config.train.device)  # refused, like a missing budget, before anything is written
    if not (run / CONFIG).exists():
        _check_beginning(config)
    with lock(run):
        config = _settle(config, stage)
        with _log_to(run / "training.log"):
            return _run(stage, config, run)


def _run(stage: Stage, config: C, run: Path) -> dict[str, Any]:
    began = time.perf_counter()
    trainer = _trainer(stage, config)
    resumed_at = trainer.resume(config.resume) if config.resume != "never" else 0
    (run / MANIFEST).unlink(missing_ok=True)  # a complete run that is opened again is not complete until it ends
    _save_tokenizer(run / TOKENIZER, stage.tokenizer)
    logger.info("%s: step %d of %d on %s", stage.name, resumed_at, trainer.steps, trainer.device)
    warning = few_steps(config.train, stage.length)
    if warning is not None:
        logger.warning(warning)
    finished = trainer.train()
    result: dict[str, Any] = {
        "stage": stage.name,
        "finished": finished,
        "steps": trainer.progress.step,
        "resumed_at": resumed_at,
        "units": trainer.progress.units,
        **_metrics(trainer, trainer.progress.step),
    }
    if warning is not None:
        result["warning"] = warning
    if not finished:
        done = f"stopped at step {trainer.progress.step:,} of {trainer.steps:,} and saved"
        logger.warning("%s; the same command goes on", done)
        result["interrupted"] = trainer.interrupted
    if finished:
        best = trainer.load_best() if config.train.select == "best" else None
        selected = trainer.progress.step if best is None else best
        result |= _metrics(trainer, selected)
        save_model(
            run / "model",
            trainer.model,
            stage.tokenizer,
            inputs=stage.hashes,
            card=_card(stage, trainer.model.config, result, run),
            overwrite=True,
        )
        result |= {"model": str(run / "model"), "selected_step": selected}
        card = _card(stage, trainer.model.config, result, run)
        if chart := loss_chart(trainer.metrics.records(), stage.name):
            write_atomic(run / FILE, chart)
            card["Loss"] = f"![Loss over the steps]({FILE})"
        write_card(run, f"Run {run.name}", card)
        seal(run, "run", stage.hashes, _settings(config))
    result |= {"seconds": round(time.perf_counter() - began, 2), "peak_rss_mb": round(peak_memory_mb(), 1)}
    write_result(run, result)
    return result


def _save_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Beside the checkpoints, so that each of them can be used as a model."""
    with writing(folder):
        folder.mkdir(exist_ok=True)
    tokenizer.save(folder)


def _trainer(stage: Stage, config: C, *, quiet: bool = False) -> Trainer[Any]:
    device = choose_device(config.train.device)
    set_determinism(config.train.deterministic)
    model = stage.model().to(device)
    display = Display(
        stage.name,
        flops_per_token=training_flops(model.config, stage.length),
        peak_flops=gemm_peak(device),
        shows_mfu=device.type != "cpu",
        quiet=quiet,
    )
    return Trainer(
        model,
        stage.objective,
        stage.source,
        stage.validation,
        config=config.train,
        optimizer=config.optimizer,
        schedule=config.schedule,
        run=config.out,
        display=display,
        inputs=stage.hashes,
    )


# The config of a run -------------------------------------------------------------------------------------------------


def _settle(config: C, stage: Stage) -> C:
    """The config with its budget as a step count, written to the run; that of the run itself when it goes on."""
    path = config.out / CONFIG
    if path.exists():
        if config.resume == "never":
            raise ConfigError(f"{config.out} holds a run and resume is never", "Choose another --out.")
        earlier = load_config(path, type(config))
        _refuse_difference(config, earlier)
        free = {key: getattr(config.train, key) for key in FREE}
        return replace(earlier, out=config.out, resume=config.resume, train=replace(earlier.train, **free))
    config = replace(config, train=_counted(config, stage))
    save_config(path, config)
    return config


def _check_beginning(config: StageConfig) -> None:
    """DataError or ConfigError when no run can begin in `config.out`."""
    budgets = config.train.budgets
    if config.resume not in ("auto", "never"):
        raise DataError(f"{config.out} holds no run that could go on from {config.resume}")
    if len(budgets) != 1:
        problem = f"a run has one budget, not {' and '.join(budgets)}" if budgets else "train needs a budget"
        raise ConfigError(problem, "Give --train.steps, --train.epochs or --train.minutes.")
    if config.out.is_dir() and any(not entry.name.startswith(".") for entry in config.out.iterdir()):
        raise ConfigError(f"{config.out} is not empty and holds no run", "Choose another --out.")


def _counted(config: C, stage: Stage) -> TrainConfig:
    """The budget as a step count. Minutes are measured; validation then takes at most a tenth of them."""
    train = config.train
    if train.steps is not None:
        return train
    if train.epochs is not None:
        return replace(train, steps=max(1, round(train.epochs * stage.source.samples / train.batch)))
    assert train.minutes is not None  # one budget is given
    step, validation = measure_seconds(stage, config)
    # One second in twenty is left for checkpoints and for a machine that slows down as it warms.
    seconds = 0.95 * 60 * train.minutes - 2 * validation  # before the first step and after the last
    interval = train.validate_every or max(math.ceil(9 * validation / step), int(seconds / step / 20), 1)
    steps = max(1, int(seconds / (step + validation / interval)))
    return replace(train, steps=steps, validate_every=interval)


def measure_seconds(stage: Stage, config: C) -> tuple[float, float]:
    """Seconds of a step and of a validation, on a copy of the model that is thrown away."""
    trainer = _trainer(stage, replace(config, train=replace(config.train, steps=10**6)), quiet=True)
    times = []
    for _ in range(2 + MEASURED_STEPS):
        start = time.perf_counter()
        trainer.step()
        times.append(time.perf_counter() - start)
    start = time.perf_counter()
    if stage.validation is not None:
        trainer.validate()
    return sorted(times[2:])[MEASURED_STEPS // 2], time.perf_counter() - start


def _refuse_difference(config: StageConfig, earlier: StageConfig) -> None:
    """ConfigError when a run is asked to go on with other settings than it began with.

    A path counts as the place it leads to, however it is written.
    """
    free = ("out", "resume", *(f"train.{key}" for key in FREE))
    began = _settings(earlier, paths=True)
    for key, value in _settings(config, paths=True).items():
        counted = key in ("train.steps", "train.validate_every") and value is None  # counted out from epochs or minutes
        if not counted and not key.startswith(free) and began.get(key) != value:
            raise ConfigError(
                f"{config.out} was begun with {key} {began.get(key)}, now it is {value}",
                "Give the same settings to go on with it, or another --out for a new run.",
            )


def _settings(config: Any, prefix: str = "", *, paths: bool = False) -> dict[str, Any]:
    """Every setting by its dotted key. Without `paths`: what a run does, not where."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= _settings(value, f"{prefix}{field.name}.", paths=paths)
        elif isinstance(value, Path):
            found |= {prefix + field.name: str(value.resolve())} if paths else {}
        else:
            found[prefix + field.name] = value
    return found


def few_steps(train: TrainConfig, length: int) -> str | None:
    """What to say of minutes that hold too few steps; None when they hold enough, or the steps were asked for."""
    if train.minutes is None or train.steps is None or train.steps >= FEW_STEPS:
        return None
    speed = train.steps * train.batch * length / (60 * train.minutes)
    return (
        f"{train.steps} steps fit into {train.minutes:.3g} minutes at {speed:,.0f} tokens/s: too few to learn; other "
        "programs use the cores? Try OMP_NUM_THREADS=1, or more minutes."
    )


# Records -------------------------------------------------------------------------------------------------------------


def _metrics(trainer: Trainer[Any], step: int) -> dict[str, float]:
    """The newest ones up to a step."""
    newest: dict[str, float] = {}
    for record in trainer.metrics.records():
        if record["step"] <= step:
            newest |= {key: value for key, value in record.items() if key.startswith("val_") or key == "loss"}
    return newest


def _card(stage: Stage, model: ModelConfig, result: Mapping[str, Any], run: Path) -> dict[str, str]:
    lines = [
        f"- {words.name(key)}: {words.value(value)}"
        for key, value in result.items()
        if key in ("steps", "units", "val_loss", "val_bits_per_byte")
    ]
    parameters = count_parameters(model).total
    return {
        "What": f"A Qwen3-style language model of {parameters:,} parameters, made by `seedbed {stage.name}`.",
        "Measured": "\n".join(lines),
        "Made from": "\n".join(f"- {name}: `{path}`" for name, path in stage.inputs.items()),
        "Use": f'`seedbed generate --model {shlex.quote(str(run))} --prompt "Once"`, or, in transformers, '
        f'`AutoModelForCausalLM.from_pretrained("{run / "model"}")`.',
    }


@contextlib.contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Everything that seedbed logs also goes to the run's own rotating log."""
    handler = logging.handlers.RotatingFileHandler(
        path, maxBytes=10_000_000, backupCount=3, encoding="utf-8", delay=True
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    package = logging.getLogger("seedbed")
    # Warnings are for the person too: such as a checkpoint that had to be passed over.
    aloud = logging.StreamHandler()
    aloud.setLevel(logging.WARNING)
    aloud.setFormatter(logging.Formatter("seedbed: %(message)s"))
    package.addHandler(handler)
    package.addHandler(aloud)
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.removeHandler(aloud)
        handler.close()
