"""The whole state of a run, written so that it is there completely or not at all.

A checkpoint is a folder of kind "checkpoint": tensors through torch.distributed.checkpoint in safetensors (no pickle,
readable by another number of processes), plain numbers in state.json, the model's config in seedbed.json, and a
manifest written last that holds every file's hash. Everything is verified before anything is loaded.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from seedbed.errors import CorruptionError, DataError
from seedbed.model.folder import CHECKPOINTS, read_config, write_config
from seedbed.model.state import MODEL, describe_state, read_state, weight_state, write_state
from seedbed.model.transformer import Transformer, weight_shapes
from seedbed.model.weights import check_shapes
from seedbed.optim.state import state_shapes
from seedbed.runs import MANIFEST, new_folder, open_folder, read_record, refuse_unlisted, write_json, writing
from seedbed.training.background import Background
from seedbed.training.parallel.parallel import Parallel, in_place_of, local
from seedbed.training.parallel.world import PeerError, World

logger = logging.getLogger(__name__)

STATE = "state.json"
"""In a checkpoint: all that is no tensor."""
FIRST_FIELDS = ("step", "units", "skipped_in_row", "best_step", "best_loss", "validations_without_gain")
"""What the state of every run has; of fields that came later, files of earlier versions have the defaults."""
OPTIMIZER, RANDOM = "optimizer.", "random."
"""Before the names of tensors that are no weights: `optimizer.WEIGHT:KEY`, `random.DEVICE`, in the second replica and
those after it `random.DEVICE:REPLICA`."""
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
    """The checkpoints of one run. All of its processes write and load them together."""

    def __init__(self, run: Path, inputs: Mapping[str, str] | None = None, parallel: Parallel | None = None):
        """`inputs`: hashes of what the run is made from, by role: the lineage of each checkpoint. `parallel`: how the
        tensors are divided; needed to save and load."""
        self.folder = run / CHECKPOINTS
        self.inputs = inputs or {}
        self.parallel = parallel
        self.world = parallel.world if parallel else World()
        self.current: int | None = None
        """Step of the checkpoint that was saved or loaded last."""
        self._background = Background()
        self._copies: dict[str, Tensor] = {}
        self._group: dist.ProcessGroup | None = None

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
        *,
        keep: int | None = None,
        background: bool = False,
    ) -> None:
        """Writes the checkpoint of `progress.step`, with `further` tensors by name, then removes all but the `keep`
        newest and the best.

        In the background the state is copied, and written while training goes on: what is lost if that fails is this
        checkpoint, and `wait` tells. StorageError, and nothing left behind, when it cannot be written.
        """
        self.wait()
        target = self.path(progress.step)
        self.current = progress.step
        if self.world.led(target.exists):
            return
        tensors = _tensors(model, optimizers, self._parallel) | dict(further)
        if background:
            tensors = self._copied(tensors)
        if self.world.size > 1 and self._group is None:
            self._group = dist.new_group(backend="gloo")  # its own: the model's messages go on meanwhile

        def write() -> None:
            with self._staging(target, fingerprint) as staging:
                write_state(staging, tensors, self._group)
                if self.world.leads:
                    write_config(staging, model.config)
                    write_json(staging / STATE, asdict(progress))
            if self.world.leads:
                logger.info("saved step %d", progress.step)
                if keep is not None:
                    self.prune(keep, progress.best_step)

        self._background.start(write)
        if not background:
            self.wait()

    def wait(self) -> None:
        """Until what is being saved is on the disk. StorageError when it could not be written, by whichever process."""
        error = self._background.wait()
        failed = self.world.any(error is not None)
        if error is not None:
            raise error
        if failed:
            raise PeerError("another process could not write its part of a checkpoint")

    def abandon(self) -> None:
        """Lets a save that is under way end, when this process is about to end with an error."""
        if (error := self._background.wait()) is not None:
            logger.warning("the last checkpoint could not be written: %s", error)

    @property
    def _parallel(self) -> Parallel:
        assert self.parallel is not None
        return self.parallel

    def _copied(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """In memory of the CPU that each save uses again."""
        for name, tensor in tensors.items():
            held = local(tensor)
            copy = self._copies.get(name)
            if copy is None or copy.shape != held.shape or copy.dtype != held.dtype:
                self._copies[name] = torch.empty_like(held, device="cpu", memory_format=torch.contiguous_format)
            self._copies[name].copy_(held)
        self._copies = {name: self._copies[name] for name in tensors}
        return {name: in_place_of(tensor, self._copies[name]) for name, tensor in tensors.items()}

    @contextlib.contextmanager
    def _staging(self, target: Path, fingerprint: str) -> Iterator[Path]:
        """A new folder that all processes fill and the leader seals. What they say here goes through their own group,
        since it is said in the background."""
        with contextlib.ExitStack() as stack:
            place: list[str | None] = [None]
            try:
                if self.world.leads:
                    settings = {"data": fingerprint}
                    made = new_folder(target, "checkpoint", inputs=self.inputs, config=settings)
                    place = [str(stack.enter_context(made))]
            finally:
                if self._group is not None:
                    dist.broadcast_object_list(place, src=0, group=self._group)
            if place[0] is None:
                raise PeerError("the leading process could not begin a checkpoint")
            stack.enter_context(writing(target))
            yield Path(place[0])

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
        progress = self.world.led(lambda: self._verified(step, model, fingerprint))
        _load_tensors(self.path(step), model, optimizers, self._parallel, further)
        self.current = step
        return progress

    def _verified(self, step: int, model: Transformer, fingerprint: str) -> RunState:
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
        every, complete = self.world.led(lambda: (self._all_steps(), self.steps()))
        for step in reversed(every):
            if step not in complete:
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


def _tensors(model: Transformer, optimizers: list[Optimizer], parallel: Parallel) -> dict[str, Tensor]:
    """Everything of this process that has to be the same bit for bit after a resume, by name."""
    tensors = {MODEL + name: parameter.detach() for name, parameter in model.named_parameters()}
    for name, parameter in model.named_parameters():
        moved = parallel.moved(parameter)
        for optimizer in optimizers:
            for key, value in (optimizer.state.get(moved, {}) if moved is not None else {}).items():
                tensors[f"{OPTIMIZER}{name}:{key}"] = parallel.like(parameter, value)
    for device, state in _generators().items():
        tensors[_random(device, parallel)] = state
    return tensors


def _generators() -> dict[str, Tensor]:
    """The state of each random generator of this process."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _random(device: str, parallel: Parallel) -> str:
    """The name of a generator's state: of the first replica as of a process alone, of others with their number."""
    return f"{RANDOM}{device}" + (f":{parallel.replica}" if parallel.replica else "")


def _load_tensors(
    folder: Path, model: Transformer, optimizers: list[Optimizer], parallel: Parallel, further: Mapping[str, Tensor]
) -> None:
    """Puts every tensor where it was. What the files hold is compared with the model before memory is taken for it."""
    stored = describe_state(folder)
    own = dict(model.named_parameters())
    check_shapes(weight_shapes(model.config), {n: tensor.shape for n, tensor in weight_state(stored).items()}, folder)
    if missing := [name for name in further if name not in stored]:
        raise CorruptionError(f"{folder} does not hold {missing[0]}")
    makers = {MODEL + name: _copy_of(parameter) for name, parameter in own.items()}
    makers |= {name: _copy_of(tensor) for name, tensor in further.items()}
    shapes = {MODEL + name: tuple(parameter.shape) for name, parameter in own.items()}
    shapes |= {name: tuple(tensor.shape) for name, tensor in further.items()}
    movers: dict[Tensor, nn.Parameter] = {
        moved: parameter for parameter in own.values() if (moved := parallel.moved(parameter)) is not None
    }
    names = {parameter: name for name, parameter in own.items()}
    for optimizer in optimizers:
        whole = {moved: parameter.shape for moved, parameter in movers.items()}
        for mover, kinds in state_shapes(optimizer, whole).items():
            parameter = movers[mover]
            kept = {f"{OPTIMIZER}{names[parameter]}:{key}": shape for key, shape in kinds.items()}
            if 0 < sum(name in stored for name in kept) < len(kept):
                raise CorruptionError(f"{folder} holds a part of the optimizer's state of {names[parameter]}")
            shapes |= kept
            makers |= {name: _state_of(parameter, mover, shape, parallel) for name, shape in kept.items()}
    elsewhere = {name for name, parameter in own.items() if parallel.moved(parameter) is None}
    places: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if name in shapes and tensor.shape == shapes[name]:
            places[name] = makers[name](tensor.dtype)
        elif name.startswith(OPTIMIZER) and name.removeprefix(OPTIMIZER).partition(":")[0] in elsewhere:
            continue  # the process that moves it looks at it
        elif not re.fullmatch(rf"{RANDOM}(cpu|cuda)(:\d+)?", name) or tensor.dtype != torch.uint8:
            raise CorruptionError(f"{folder} holds {name[:60]}, which is not of this model's training")
    generators = _generators()
    if f"{RANDOM}cpu" not in stored:
        raise CorruptionError(f"{folder} holds no state of this torch's random numbers")
    for device, state in generators.items():  # a replica that was not there when it was saved goes on with its seed
        if (found := stored.get(_random(device, parallel))) is not None:
            if found.shape != tuple(state.shape):
                raise CorruptionError(f"{folder} holds no state of this torch's random numbers")
            places[found.name] = state
    loaded = read_state(folder, {name: stored[name] for name in places}, places)
    with torch.no_grad():
        for name, parameter in own.items():
            local(parameter).copy_(local(loaded[MODEL + name]))
        for name, own_tensor in further.items():
            local(own_tensor).copy_(local(loaded[name]))
    states: dict[str, dict[str, Tensor]] = {}
    for name, value in loaded.items():
        if name.startswith(OPTIMIZER):
            owner, _, key = name.removeprefix(OPTIMIZER).partition(":")
            states.setdefault(owner, {})[key] = local(value)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for moved in group["params"]:
                optimizer.state[moved] = states.get(names[movers[moved]], {})
    if _random("cpu", parallel) in loaded:
        torch.set_rng_state(generators["cpu"])
    if _random("cuda", parallel) in loaded and torch.cuda.is_available():
        torch.cuda.set_rng_state(generators["cuda"])


def _copy_of(tensor: Tensor) -> Callable[[torch.dtype], Tensor]:
    """Makes memory for what this process holds of a tensor."""
    return lambda dtype: in_place_of(tensor, torch.empty_like(local(tensor), dtype=dtype))


def _state_of(
    parameter: nn.Parameter, moved: Tensor, shape: tuple[int, ...], parallel: Parallel
) -> Callable[[torch.dtype], Tensor]:
    """Makes memory for what an optimizer keeps here of a parameter; `shape`: of the whole of it."""
    held = shape if not shape or parallel.moves_whole(parameter) else moved.shape
    return lambda dtype: parallel.like(parameter, torch.empty(held, dtype=dtype, device=parameter.device))
