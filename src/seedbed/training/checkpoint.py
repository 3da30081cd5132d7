"""The whole state of a run, written so that it is there completely or not at all.

A checkpoint is a folder of kind "checkpoint": tensors through torch.distributed.checkpoint in safetensors (no pickle,
readable by another number of processes), plain numbers in state.json, the model's config in seedbed.json, and a
manifest written last that holds every file's hash. Everything is verified before anything is loaded.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor
from torch.optim import Optimizer

from seedbed.errors import CorruptionError, DataError
from seedbed.model.folder import CHECKPOINTS, read_config, write_config
from seedbed.model.state import MODEL, describe_state, read_state, weight_state, write_state
from seedbed.model.transformer import Transformer, weight_shapes
from seedbed.model.weights import check_shapes
from seedbed.optim.state import state_shapes
from seedbed.runs import MANIFEST, new_folder, open_folder, read_record, refuse_unlisted, write_json, writing

logger = logging.getLogger(__name__)

STATE = "state.json"
"""In a checkpoint: all that is no tensor."""
FIRST_FIELDS = ("step", "units", "skipped_in_row", "best_step", "best_loss", "validations_without_gain")
"""What the state of every run has; of fields that came later, files of earlier versions have the defaults."""
OPTIMIZER, RANDOM = "optimizer.", "random."
"""Before the names of tensors that are no weights: `optimizer.WEIGHT:KEY`, `random.DEVICE`."""
NOTHING: Mapping[str, Tensor] = MappingProxyType({})


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

    @property
    def validated(self) -> bool:
        """Whether there has been a validation."""
        return self.best_step is not None or self.validations_without_gain > 0


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, run: Path, inputs: Mapping[str, str] | None = None):
        """`inputs`: hashes of what the run is made from, by role: the lineage of each checkpoint."""
        self.folder = run / CHECKPOINTS
        self.inputs = inputs or {}

    def path(self, step: int) -> Path:
        return self.folder / f"step_{step:08d}"

    def steps(self) -> list[int]:
        """Steps that have a complete checkpoint, oldest first."""
        return [step for step in self._all_steps() if (self.path(step) / MANIFEST).is_file()]

    def _all_steps(self) -> list[int]:
        """Also those whose folder has lost its manifest: a process died while it removed them."""
        names = (path.name.removeprefix("step_") for path in self.folder.glob("step_*"))
        return sorted(int(name) for name in names if name.isdecimal())

    def step_of(self, path: Path) -> int:
        """The step of one of this run's checkpoints, given by its path. DataError when it is none."""
        for step in self.steps():
            if path.resolve() == self.path(step).resolve():
                return step
        names = ", ".join(self.path(step).name for step in self.steps()) or "none"
        raise DataError(f"{path} is no checkpoint of this run", f"Complete checkpoints in {self.folder}: {names}")

    def save(
        self,
        model: Transformer,
        optimizers: list[Optimizer],
        progress: RunState,
        fingerprint: str,
        further: Mapping[str, Tensor] = NOTHING,
    ) -> None:
        """Writes the checkpoint of `progress.step`, with `further` tensors by name; StorageError, and nothing left
        behind, when that is impossible."""
        target = self.path(progress.step)
        if target.exists():
            return
        with new_folder(target, "checkpoint", inputs=self.inputs, config={"data": fingerprint}) as staging:
            write_state(staging, _tensors(model, optimizers) | dict(further))
            write_config(staging, model.config)
            write_json(staging / STATE, asdict(progress))

    def load(
        self,
        step: int,
        model: Transformer,
        optimizers: list[Optimizer],
        fingerprint: str,
        further: Mapping[str, Tensor] = NOTHING,
    ) -> RunState:
        """Puts model, optimizers and the `further` tensors where they were.

        Raises CorruptionError when a byte has changed and DataError when the checkpoint belongs to other data or
        another architecture; the model is then untouched.
        """
        folder = self.path(step)
        manifest = open_folder(folder, "checkpoint", verify="all")
        refuse_unlisted(folder, manifest, ".safetensors")  # DCP would read it too
        _refuse_architecture(folder, model)
        if manifest.config.get("data") != fingerprint:
            raise DataError(
                f"{folder} was trained on other data, or in another order, than is given now",
                "Give the same data, length and seed, or another --out.",
            )
        for role, digest in self.inputs.items():
            if manifest.inputs.get(role, digest) != digest:
                raise DataError(
                    f"{folder} was begun with another {role} than is given now",
                    "Give the one that the run was begun with, or another --out.",
                )
        progress = read_record(RunState, folder / STATE, required=FIRST_FIELDS)
        if progress.step != step:
            raise CorruptionError(f"{folder} holds the state of step {progress.step}: it was renamed")
        _load_tensors(folder, model, optimizers, further)
        return progress

    def newest(
        self,
        model: Transformer,
        optimizers: list[Optimizer],
        fingerprint: str,
        further: Mapping[str, Tensor] = NOTHING,
    ) -> RunState | None:
        """Loads the newest whole checkpoint, passing over corrupt ones with a warning; None when there is none.

        CorruptionError when there are checkpoints and every one of them is corrupt: beginning anew would destroy what a
        person may want to look at.
        """
        corrupt: CorruptionError | None = None
        for step in reversed(self._all_steps()):
            if step not in self.steps():
                logger.warning("passing over an incomplete checkpoint: %s has no manifest", self.path(step))
                continue
            try:
                return self.load(step, model, optimizers, fingerprint, further)
            except CorruptionError as error:
                logger.warning("passing over a corrupt checkpoint: %s", error.problem)
                corrupt = error
        if corrupt is not None:
            raise CorruptionError(f"no checkpoint is whole; {corrupt.problem}", "Choose another --out to begin anew.")
        return None

    def prune(self, keep: int, best: int | None) -> None:
        """Removes all but the `keep` newest and the best."""
        kept = {*self.steps()[-keep:], best}
        for step in self._all_steps():
            if step not in kept:
                self._remove(step)

    def drop_after(self, step: int) -> None:
        """Removes checkpoints of later steps, which a run that goes back to `step` will write anew."""
        for later in self._all_steps():
            if later > step:
                self._remove(later)

    def _remove(self, step: int) -> None:
        """The manifest goes first: whatever interrupts this, no half of a checkpoint claims to be complete."""
        with writing(self.path(step)):
            (self.path(step) / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(self.path(step))


def _refuse_architecture(folder: Path, model: Transformer) -> None:
    """DataError, naming the key, when the checkpoint's model is made otherwise than `model`."""
    saved, own = asdict(read_config(folder)), asdict(model.config)
    for key, value in own.items():
        if saved[key] != value:
            raise DataError(f"{folder} holds another architecture: its {key} is {saved[key]}, the model's is {value}")


def _tensors(model: Transformer, optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """Everything that has to be the same bit for bit after a resume, by name."""
    tensors = {MODEL + name: parameter.detach() for name, parameter in model.named_parameters()}
    for name, parameter in model.named_parameters():
        for optimizer in optimizers:
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"{OPTIMIZER}{name}:{key}"] = value
    tensors[f"{RANDOM}cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors[f"{RANDOM}cuda"] = torch.cuda.get_rng_state()
    return tensors


def _load_tensors(folder: Path, model: Transformer, optimizers: list[Optimizer], further: Mapping[str, Tensor]) -> None:
    """Puts every tensor where it was. What the files hold is compared with the model before memory is taken for it."""
    stored = describe_state(folder)
    own = dict(model.named_parameters())
    check_shapes(weight_shapes(model.config), {n: tensor.shape for n, tensor in weight_state(stored).items()}, folder)
    places = {MODEL + name: (tuple(parameter.shape), parameter.device) for name, parameter in own.items()}
    names: dict[Tensor, str] = {parameter: name for name, parameter in own.items()}
    for optimizer in optimizers:
        for parameter, shapes in state_shapes(optimizer).items():
            kept = {f"{OPTIMIZER}{names[parameter]}:{key}": shape for key, shape in shapes.items()}
            places |= {name: (shape, parameter.device) for name, shape in kept.items()}
            if 0 < sum(name in stored for name in kept) < len(kept):
                raise CorruptionError(f"{folder} holds a part of the optimizer's state of {names[parameter]}")
    places |= {name: (tuple(tensor.shape), tensor.device) for name, tensor in further.items()}
    if missing := [name for name in further if name not in stored]:
        raise CorruptionError(f"{folder} does not hold {missing[0]}")
    devices: dict[str, torch.device] = {}
    for name, tensor in stored.items():
        shape, device = places.get(name, (None, None))
        if device is not None and tensor.shape == shape:
            devices[name] = device
        elif name not in (f"{RANDOM}cpu", f"{RANDOM}cuda") or tensor.dtype != torch.uint8:
            raise CorruptionError(f"{folder} holds {name[:60]}, which is not of this model's training")
    loaded = read_state(folder, stored, devices)
    if f"{RANDOM}cpu" not in loaded or loaded[f"{RANDOM}cpu"].shape != torch.get_rng_state().shape:
        raise CorruptionError(f"{folder} holds no state of this torch's random numbers")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(loaded[MODEL + name])
        for name, own_tensor in further.items():
            own_tensor.copy_(loaded[name])
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                begin = f"{OPTIMIZER}{names[parameter]}:"
                optimizer.state[parameter] = {
                    name.removeprefix(begin): tensor for name, tensor in loaded.items() if name.startswith(begin)
                }
    torch.set_rng_state(loaded[f"{RANDOM}cpu"])
    if f"{RANDOM}cuda" in loaded and torch.cuda.is_available():
        torch.cuda.set_rng_state(loaded[f"{RANDOM}cuda"])
