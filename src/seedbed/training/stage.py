"""From what a stage brings to a finished run folder: budget, resume, the loop, the model, the card."""

from __future__ import annotations

import functools
import logging
import shlex
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from seedbed.data.batches.batch import BatchSource
from seedbed.devices import choose_device, gemm_peak, peak_memory_mb, set_determinism
from seedbed.errors import TrainingError
from seedbed.model.accounting import count_parameters, training_flops
from seedbed.model.adapters.saving import save_adapter
from seedbed.model.config import ModelConfig
from seedbed.model.folder import ADAPTER, TOKENIZER, save_model
from seedbed.model.huggingface.classes import describe_class, find_class
from seedbed.model.transformer import Transformer
from seedbed.model.weights import stored_dtype
from seedbed.runs import (
    MANIFEST,
    input_hash,
    lock,
    seal,
    words,
    write_atomic,
    write_card,
    write_result,
    writing,
)
from seedbed.tokenizers.tokenizer import Tokenizer
from seedbed.training.budget import MEASURED_SHARE, Costs, few_steps, fit, long_run, measure
from seedbed.training.chart import LOSS_PICTURE, loss_chart
from seedbed.training.compilation import check_compiler, pays
from seedbed.training.config import CheckpointConfig, StageConfig, TrainConfig
from seedbed.training.display import Display
from seedbed.training.objective import Objective
from seedbed.training.observers.building import build_observers
from seedbed.training.observers.observer import Observer
from seedbed.training.parallel.world import World
from seedbed.training.precision import choose_precision
from seedbed.training.run_log import log_to
from seedbed.training.settings import CONFIG, check_beginning, plain, settle, write_down
from seedbed.training.trainer import Trainer

logger = logging.getLogger(__name__)

C = TypeVar("C", bound=StageConfig)

VALIDATION_SEED = 0
"""Of the rows that are validated on: the same in every run, so that runs of different seeds compare."""

HALVES: dict[torch.dtype | None, str] = {torch.bfloat16: "bf16", torch.float16: "fp16"}
"""Numbers that a model may begin in, too coarse to hold what small rates change."""

BEGINNINGS = ("model", "init")
"""Roles among the inputs of the model that a run begins with."""

MEASURING = ".measuring"
"""In a run's folder, while its minutes are turned into steps."""


@dataclass(frozen=True)
class Stage:
    """What a training stage brings to the one loop."""

    name: str
    architecture: ModelConfig
    model: Callable[[], Transformer]
    """Makes the model of it that training starts from; the same weights at every call."""
    tokenizer: Tokenizer
    source: BatchSource[Any]
    validation: BatchSource[Any] | None
    objective: Objective[Any]
    length: int
    """Tokens of a row."""
    inputs: Mapping[str, Path]
    """Folders and files that the run is made from."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """What the stage itself has to say, for its log and result."""
    phases: Sequence[int] = (0,)
    """Steps from which on a step may cost something else, as those of a length curriculum do."""
    observers: Sequence[Observer] = ()
    """What watches the run beside those that its settings ask for."""
    state: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors of the stage's own, by name, that a checkpoint holds besides and a resumed run gets back in place."""
    saved: Callable[[Transformer], Transformer] = lambda model: model
    """Makes of the trained model the one that is saved."""
    began: float = field(default_factory=time.perf_counter)
    """When the command set to work, on the clock of `time.perf_counter`: what it did since belongs to its minutes."""

    @functools.cached_property
    def hashes(self) -> dict[str, str]:
        """Of the inputs, by role."""
        return {role: input_hash(path) for role, path in self.inputs.items()}


def run_stage(stage: Stage, config: C) -> dict[str, Any]:
    """Trains, or goes on training, in the folder `config.out`; the result that `result.json` holds.

    The folder is complete when its manifest is there. A run that was asked to stop is saved, returns with
    `"finished": false`, and goes on when the same command is given again.
    """
    run, world = config.out, World.here()
    device = choose_device(config.train.device)  # refused, like a missing budget, before anything is written
    choose_precision(config.train.precision, device)
    if config.train.compile == "on":
        check_compiler(device)
    if not world.leads:
        return _follow(stage, world)
    observers = [*build_observers(config, stage.tokenizer), *stage.observers]
    if not (run / CONFIG).exists():
        check_beginning(config)
    with lock(run), log_to(run, config.log):
        config = settle(config, lambda settings: _counted(_with_compile(settings, stage), stage))
        world.tell(config)
        return world.tell(_run(stage, config, run, observers))


def _follow(stage: Stage, world: World) -> dict[str, Any]:
    """What the other processes do: they measure with the leader when it does, then train by the settings it tells."""
    logging.getLogger("seedbed").setLevel(logging.ERROR)  # the leader warns for all
    told: Any = world.tell()
    while isinstance(told, _Measuring):
        _measured(told.config, stage, told.seconds)
        told = world.tell()
    trainer = _trainer(stage, told)
    trainer.resume(told.resume)
    if trainer.train():
        _select(trainer)
        trainer.parallel.whole_model()
    return world.tell()


def _select(trainer: Trainer[Any]) -> int:
    """Puts the weights that become the model into it; their step."""
    best = trainer.load_best() if trainer.config.select == "best" else None
    if trainer.average is not None:
        trainer.average.exchange(trainer.progress.step)
    return trainer.progress.step if best is None else best


def _run(stage: Stage, config: C, run: Path, observers: Sequence[Observer]) -> dict[str, Any]:
    trainer = _trainer(stage, config, observers)
    resumed_at = trainer.resume(config.resume)
    (run / MANIFEST).unlink(missing_ok=True)  # a complete run that is opened again is not complete until it ends
    write_down(config)
    _save_tokenizer(run / TOKENIZER, stage.tokenizer)
    logger.info("%s: step %d of %d on %s", stage.name, resumed_at, trainer.steps, trainer.device)
    for name, note in stage.notes.items():
        logger.info("%s: %s", name, note)
    warning = few_steps(config.train) or long_run(_least_seconds(config.train, stage))
    if warning is not None:
        logger.warning(warning)
    finished = trainer.train()
    if finished and 0 < trainer.progress.step == trainer.progress.skipped_in_row:
        raise TrainingError(
            f"nothing was learned: none of the {trainer.progress.step:,} steps had a gradient that is a number",
            "A smaller rate, or a setting that is less extreme.",
        )
    result: dict[str, Any] = {
        "stage": stage.name,
        "finished": finished,
        "steps": trainer.progress.step,
        "resumed_at": resumed_at,
        "units": trainer.progress.units,
        **stage.notes,
        **_metrics(trainer, trainer.progress.step),
    }
    if warning is not None:
        result["warning"] = warning
    if trainer.asked_to_stop:
        result["asked_to_stop"] = True
    if not finished:
        done = f"stopped at step {trainer.progress.step:,} of {trainer.steps:,} and saved"
        logger.warning("%s; the same command goes on", done)
        result["interrupted"] = trainer.interrupted
    if finished:
        selected = _select(trainer)
        result |= _metrics(trainer, selected)
        whole = trainer.parallel.whole_model()
        assert whole is not None  # this process leads
        whole = stage.saved(whole)
        made = ADAPTER if whole.adapter else "model"
        save = save_adapter if whole.adapter else save_model
        save(
            run / made,
            whole,
            stage.tokenizer,
            inputs=stage.hashes,
            card=_card(stage, whole, result, run),
            overwrite=True,
        )
        result |= {made: str(run / made), "selected_step": selected}
        if made == "model" and (grown := _grown(stage, run)):
            result["saved_in"] = grown
        card = _card(stage, whole, result, run)
        if chart := loss_chart(trainer.metrics.records(), stage.name):
            write_atomic(run / LOSS_PICTURE, chart)
            card["Loss"] = f"![Loss over the steps]({LOSS_PICTURE})"
        write_card(run, f"Run {run.name}", card)
        seal(run, "run", stage.hashes, plain(config))
    result["used"] = trainer.meter.totals()
    result |= {"seconds": round(time.perf_counter() - stage.began, 2), "peak_rss_mb": round(peak_memory_mb(), 1)}
    write_result(run, result)
    return result


def _save_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Beside the checkpoints, so that each of them can be used as a model."""
    with writing(folder):
        folder.mkdir(exist_ok=True)
    tokenizer.save(folder)


def _trainer(stage: Stage, config: C, observers: Sequence[Observer] = (), *, quiet: bool = False) -> Trainer[Any]:
    device = choose_device(config.train.device)
    set_determinism(config.train.deterministic)
    model = stage.model().to(device)
    world = World.here()
    display = Display(
        stage.name,
        flops_per_token=training_flops(model.config, stage.length),
        peak_flops=gemm_peak(device) * world.size,
        shows_mfu=device.type != "cpu",
        quiet=quiet or not world.leads,
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
        observers=observers,
        state=stage.state,
    )


def _counted(config: StageConfig, stage: Stage) -> TrainConfig:
    """The budget as a number of steps."""
    train = config.train
    shutil.rmtree(config.out / MEASURING, ignore_errors=True)  # left by a process that was killed
    if train.steps is not None:
        return train
    if train.epochs is not None:
        return replace(train, steps=max(1, round(train.batch_schedule.steps_for(train.epochs * stage.source.samples))))
    assert train.minutes is not None  # one budget is given
    seconds = 60 * train.minutes
    World.here().tell(_Measuring(config, seconds))
    costs = _measured(config, stage, seconds)
    spent = max(time.perf_counter() - stage.began, 0.0)  # a clock may be set back
    train = fit(train, costs, 60 * train.minutes - spent)
    steps = ", ".join(f"{step:.4f} s a step from step {first:,} on" for first, step in costs.phases)
    logger.info("%s, %.3f s a validation: %d steps", steps, costs.validation, train.steps)
    return train


def _with_compile(config: C, stage: Stage) -> C:
    """Whether to compile, decided from what the run is estimated to take."""
    train = config.train
    if train.compile != "auto":
        return config
    device = choose_device(train.device)
    if train.minutes is not None:
        seconds = 60 * train.minutes
    else:
        seconds = _least_seconds(train, stage)
    chosen: Literal["on", "off"] = "on" if pays(seconds, device) else "off"
    logger.info("compile: %s, for a run of about %.0f s or more", chosen, seconds)
    return replace(config, train=replace(train, compile=chosen))


def _least_seconds(train: TrainConfig, stage: Stage) -> float:
    """What the steps or epochs take if nothing counts but matrix products at the measured speed of the devices."""
    samples = train.batch_schedule.first(train.steps) if train.steps else (train.epochs or 0.0) * stage.source.samples
    flops = samples * stage.length * training_flops(stage.architecture, stage.length)
    return flops / (gemm_peak(choose_device(train.device)) * World.here().size)


@dataclass(frozen=True)
class _Measuring:
    """What the leader asks the others to do with it."""

    config: StageConfig
    seconds: float


def _measured(config: StageConfig, stage: Stage, seconds: float) -> Costs:
    """What steps cost, measured in a folder inside the run's, on the same disk, that is removed again."""
    scratch = config.out / MEASURING
    unending = replace(config.train, steps=10**9, validate_every=None, checkpoint=CheckpointConfig())
    try:
        with writing(scratch):
            scratch.mkdir(exist_ok=True)  # each process makes it, and takes it away, when it is there
        trainer = _trainer(stage, replace(config, out=scratch, train=unending), quiet=True)
        phases = sorted({*stage.phases, *(phase.from_step for phase in config.train.batches)})
        return measure(trainer, MEASURED_SHARE * seconds, phases)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


# Records -------------------------------------------------------------------------------------------------------------


def _metrics(trainer: Trainer[Any], step: int) -> dict[str, float]:
    """The newest ones up to a step."""
    newest: dict[str, float] = {}
    for record in trainer.metrics.records():
        if record["step"] <= step:
            newest |= {key: value for key, value in record.items() if key.startswith("val_") or key == "loss"}
    return newest


def _card(stage: Stage, model: Transformer, result: Mapping[str, Any], run: Path) -> dict[str, str]:
    lines = [
        f"- {words.name(key, stage.name)}: {words.value(value)}"
        for key, value in result.items()
        if key in ("steps", "units", "val_loss", "val_bits_per_byte", "val_accuracy", "val_margin", "val_reward")
    ]
    return {
        "What": _what(stage, model),
        "Measured": "\n".join(lines),
        "Made from": "\n".join(f"- {name}: `{path}`" for name, path in stage.inputs.items()),
        "Use": _use(model, run),
    }


def _grown(stage: Stage, run: Path) -> str | None:
    """In what a model is saved that began in half as many bits, and how it gets back there; None where it did not."""
    began = next((HALVES.get(stored_dtype(stage.inputs[role])) for role in BEGINNINGS if role in stage.inputs), None)
    if began is None:
        return None
    halved = f"seedbed quantize --model {shlex.quote(str(run))} --scheme {began} --out"
    return f"fp32, in which it learned; in {began}, as it began, by {halved} {shlex.quote(f'{run}-{began}')}"


def _what(stage: Stage, model: Transformer) -> str:
    if model.adapter is not None:
        parameters = sum(parameter.numel() for parameter in model.moving.values())
        what = f"An adapter ({model.adapter.method}) of {parameters:,} parameters over a language model of"
        return f"{what} {count_parameters(model.config).total:,}, made by `seedbed {stage.name}`."
    kind = "language" if model.config.head == "tokens" else "reward"
    what = f"A {kind} model of {count_parameters(model.config).total:,} parameters, made by `seedbed {stage.name}`."
    return f"{what} {describe_class(model.config)}"


def _use(model: Transformer, run: Path) -> str:
    speaks = model.config.head == "tokens"
    goes_on = model.config.causal and speaks
    use = f"`seedbed {'generate' if goes_on else 'inspect'} --model {shlex.quote(str(run))}"
    use += ' --prompt "Once"`' if goes_on else "`"
    if model.adapter is None and find_class(model.config) is not None:
        opener = "AutoModelForCausalLM" if speaks else "AutoModelForSequenceClassification"
        use += f', or, in transformers, `{opener}.from_pretrained("{run / "model"}")`'
    return f"{use}."
