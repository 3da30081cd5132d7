"""From what a stage brings to a finished run folder: budget, resume, the loop, the model, the card."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from seedbed.configuration import load_config, save_config, to_dict
from seedbed.data.batch import BatchSource
from seedbed.devices import choose_device, gemm_peak, peak_memory_mb, set_determinism
from seedbed.errors import ConfigError, DataError
from seedbed.model.accounting import count_parameters, training_flops
from seedbed.model.config import ModelConfig
from seedbed.model.folder import TOKENIZER, save_model
from seedbed.model.transformer import Transformer
from seedbed.runs import MANIFEST, lock, seal, write_card, write_result, writing
from seedbed.tokenizers.tokenizer import Tokenizer
from seedbed.training.config import StageConfig
from seedbed.training.display import Display
from seedbed.training.objective import Objective
from seedbed.training.trainer import Trainer

logger = logging.getLogger(__name__)

C = TypeVar("C", bound=StageConfig)

CONFIG = "config.yaml"
"""In a run's folder: its exact config."""

FREE = ("device", "log_every", "checkpoint")
"""Settings of `train` that a run may go on with differently: they move no weight, up to a device's rounding."""

MEASURED_STEPS = 8
"""Steps that are timed to turn minutes into a step count, after two that warm the machine up."""


@dataclass(frozen=True)
class Stage:
    """What a training stage brings to the one loop."""

    name: str
    model: Callable[[], Transformer]
    """Makes the model that training starts from; the same weights at every call."""
    tokenizer: Tokenizer
    source: BatchSource
    validation: BatchSource | None
    objective: Objective
    length: int
    """Tokens of a row."""
    inputs: Mapping[str, Path]
    """Folders and files that the run is made from."""


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
    finished = trainer.train()
    result: dict[str, Any] = {
        "stage": stage.name,
        "finished": finished,
        "steps": trainer.progress.step,
        "resumed_at": resumed_at,
        "units": trainer.progress.units,
        **_metrics(trainer, trainer.progress.step),
    }
    if finished:
        best = trainer.load_best() if config.train.select == "best" else None
        selected = trainer.progress.step if best is None else best
        result |= _metrics(trainer, selected)
        save_model(
            run / "model",
            trainer.model,
            stage.tokenizer,
            inputs=stage.inputs,
            card=_card(stage, trainer.model.config, result),
            overwrite=True,
        )
        result |= {"model": str(run / "model"), "selected_step": selected}
        write_card(run, f"Run {run.name}", _card(stage, trainer.model.config, result))
        seal(run, "run", stage.inputs, to_dict(replace(config, out=Path(run.name))))
    result |= {"seconds": round(time.perf_counter() - began, 2), "peak_rss_mb": round(peak_memory_mb(), 1)}
    write_result(run, result)
    return result


def _save_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Beside the checkpoints, so that each of them can be used as a model."""
    with writing(folder):
        folder.mkdir(exist_ok=True)
    tokenizer.save(folder)


def _trainer(stage: Stage, config: C, *, quiet: bool = False) -> Trainer:
    device = choose_device(config.train.device)
    set_determinism(config.train.deterministic)
    model = stage.model().to(device)
    display = Display(
        stage.name,
        flops_per_token=training_flops(model.config, stage.length),
        peak_flops=gemm_peak(device),
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
    config = replace(config, train=replace(config.train, steps=_steps(config, stage)))
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


def _steps(config: C, stage: Stage) -> int:
    train = config.train
    if train.steps is not None:
        return train.steps
    if train.epochs is not None:
        return max(1, round(train.epochs * stage.source.samples / train.batch))
    assert train.minutes is not None  # one budget is given
    step, validation = measure_seconds(stage, config)
    # One step in a hundred is left for checkpoints and for a machine that slows down as it warms.
    return max(1, int(0.99 * (60 * train.minutes - 21 * validation) / step))


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
    """ConfigError when a run is asked to go on with other settings than it began with."""
    free = ("out", "resume", *(f"train.{key}" for key in FREE))
    asked, began = _flat(to_dict(config)), _flat(to_dict(earlier))
    for key, value in asked.items():
        counted = key == "train.steps" and value is None  # steps were counted out from epochs or minutes
        if counted or key.startswith(free):
            continue
        if began.get(key) != value:
            raise ConfigError(
                f"{config.out} was begun with {key} {began.get(key)}, now it is {value}",
                "Give the same settings to go on with it, or another --out for a new run.",
            )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


# Records -------------------------------------------------------------------------------------------------------------


def _metrics(trainer: Trainer, step: int) -> dict[str, float]:
    """The newest ones up to a step."""
    newest: dict[str, float] = {}
    for record in trainer.metrics.records():
        if record["step"] <= step:
            newest |= {key: value for key, value in record.items() if key.startswith("val_") or key == "loss"}
    return newest


def _card(stage: Stage, model: ModelConfig, result: Mapping[str, Any]) -> dict[str, str]:
    lines = [
        f"- {key}: {value}"
        for key, value in result.items()
        if key in ("steps", "units", "val_loss", "val_bits_per_byte")
    ]
    parameters = count_parameters(model).total
    return {
        "What": f"A Qwen3-style language model of {parameters:,} parameters, made by `seedbed {stage.name}`.",
        "Measured": "\n".join(lines),
        "Made from": "\n".join(f"- {name}: `{path}`" for name, path in stage.inputs.items()),
        "Use": '`seedbed generate --model FOLDER --prompt "Once"`, or, in transformers, '
        "`AutoModelForCausalLM.from_pretrained(FOLDER)`.",
    }


@contextlib.contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Everything that seedbed logs also goes to the run's own rotating log."""
    handler = logging.handlers.RotatingFileHandler(
        path, maxBytes=10_000_000, backupCount=3, encoding="utf-8", delay=True
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    package = logging.getLogger("seedbed")
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.removeHandler(handler)
        handler.close()
