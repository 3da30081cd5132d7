"""The whole state of a run, written so that it is there completely or not at all.

A checkpoint is a folder of kind "checkpoint": tensors through torch.distributed.checkpoint in safetensors (no pickle,
readable by another number of processes), plain numbers in state.json, the model's config in seedbed.json, and a
manifest written last that holds every file's hash. Everything is verified before anything is loaded.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from seedbed.errors import CorruptionError, DataError
from seedbed.model.folder import CHECKPOINTS, read_config, write_config
from seedbed.model.state import write_state
from seedbed.model.transformer import Transformer
from seedbed.runs import MANIFEST, new_folder, open_folder, read_record, refuse_unlisted, write_json, writing
from seedbed.training.background import Background
from seedbed.training.parallel.parallel import Parallel, in_place_of, local
from seedbed.training.parallel.world import PeerError, World
from seedbed.training.run_state import FIRST_FIELDS, RunState
from seedbed.training.tensors import load_tensors, tensors_of

logger = logging.getLogger(__name__)

STATE = "state.json"
"""In a checkpoint: all that is no tensor."""
NOTHING: Mapping[str, Tensor] = MappingProxyType({})


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
        tensors = tensors_of(model, optimizers, self._parallel) | dict(further)
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
        load_tensors(self.path(step), model, optimizers, self._parallel, further)
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
