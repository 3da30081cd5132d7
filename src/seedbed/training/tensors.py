"""The tensors of a run: which of them a checkpoint holds, by name, and the way back to where they were."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from seedbed.errors import CorruptionError
from seedbed.model.state import MODEL, describe_state, read_state, weight_state
from seedbed.model.transformer import Transformer
from seedbed.model.weights import StoredTensor, check_shapes
from seedbed.optim.state import state_shapes
from seedbed.training.parallel.parallel import Parallel, in_place_of, local

OPTIMIZER = "optimizer."
"""Before the names of the optimizer's state: `optimizer.WEIGHT:KEY`."""
NOT_READ = re.compile(r"random\.(cpu|cuda)(:\d+)?")
"""What older versions wrote besides: states of random generators. Each step begins with a seed of its own."""


def tensors_of(model: Transformer, optimizers: list[Optimizer], parallel: Parallel) -> dict[str, Tensor]:
    """Everything of this process that has to be the same bit for bit after a resume, by name."""
    tensors = {MODEL + name: parameter.detach() for name, parameter in model.moving.items()}
    for name, parameter in model.named_parameters():
        moved = parallel.moved(parameter)
        for optimizer in optimizers:
            for key, value in (optimizer.state.get(moved, {}) if moved is not None else {}).items():
                tensors[f"{OPTIMIZER}{name}:{key}"] = parallel.like(parameter, value)
    return tensors


def load_tensors(
    folder: Path, model: Transformer, optimizers: list[Optimizer], parallel: Parallel, further: Mapping[str, Tensor]
) -> None:
    """Puts every tensor where it was. What the files hold is compared with the model before memory is taken for it.

    CorruptionError or DataError, and nothing is changed, when that is not what this run would have written.
    """
    stored = describe_state(folder)
    weights = {name: tensor.shape for name, tensor in weight_state(stored).items()}
    check_shapes({name: tuple(weight.shape) for name, weight in model.moving.items()}, weights, folder)
    if missing := [name for name in further if name not in stored]:
        raise CorruptionError(f"{folder} does not hold {missing[0]}")
    targets = {MODEL + name: parameter for name, parameter in model.moving.items()} | dict(further)
    rooms = {name: Room(tuple(tensor.shape), _like(tensor)) for name, tensor in targets.items()}
    rooms |= _rooms_of_state(folder, stored, model, optimizers, parallel)
    _refuse_strangers(folder, stored, rooms, model, parallel)
    places = {name: rooms[name].make(tensor.dtype) for name, tensor in stored.items() if name in rooms}
    loaded = read_state(folder, {name: stored[name] for name in places}, places)
    with torch.no_grad():
        for name, target in targets.items():
            local(target).copy_(local(loaded[name]))
    _hand_out(loaded, model, optimizers, parallel)


@dataclass(frozen=True)
class Room:
    """Where a tensor of a checkpoint belongs."""

    shape: tuple[int, ...]
    """Of the whole of it."""
    make: Callable[[torch.dtype], Tensor]
    """Takes memory for what this process holds of it."""


def _like(tensor: Tensor) -> Callable[[torch.dtype], Tensor]:
    return lambda dtype: in_place_of(tensor, torch.empty_like(local(tensor), dtype=dtype))


def _rooms_of_state(
    folder: Path,
    stored: Mapping[str, StoredTensor],
    model: Transformer,
    optimizers: list[Optimizer],
    parallel: Parallel,
) -> dict[str, Room]:
    """Of what the optimizers keep of the parameters that this process moves: all of a parameter's, or none yet."""
    moved_here = _moved_here(model, parallel)
    whole = {moved: parameter.shape for moved, (_, parameter) in moved_here.items()}
    rooms: dict[str, Room] = {}
    for optimizer in optimizers:
        for moved, shapes in state_shapes(optimizer, whole).items():
            name, parameter = moved_here[moved]
            kept = {
                f"{OPTIMIZER}{name}:{key}": Room(shape, _state_like(parameter, moved, shape, parallel))
                for key, shape in shapes.items()
            }
            if 0 < sum(key in stored for key in kept) < len(kept):
                raise CorruptionError(f"{folder} holds a part of the optimizer's state of {name}")
            rooms |= kept
    return rooms


def _state_like(
    parameter: nn.Parameter, moved: Tensor, shape: tuple[int, ...], parallel: Parallel
) -> Callable[[torch.dtype], Tensor]:
    held = shape if not shape or parallel.moves_whole(parameter) else moved.shape
    return lambda dtype: parallel.like(parameter, torch.empty(held, dtype=dtype, device=parameter.device))


def _moved_here(model: Transformer, parallel: Parallel) -> dict[Tensor, tuple[str, nn.Parameter]]:
    """By what the optimizers of this process move: the name of the parameter, and the parameter itself."""
    return {
        moved: (name, parameter)
        for name, parameter in model.named_parameters()
        if (moved := parallel.moved(parameter)) is not None
    }


def _refuse_strangers(
    folder: Path,
    stored: Mapping[str, StoredTensor],
    rooms: Mapping[str, Room],
    model: Transformer,
    parallel: Parallel,
) -> None:
    """CorruptionError for a tensor that no process of this run has room for."""
    elsewhere = {name for name, parameter in model.named_parameters() if parallel.moved(parameter) is None}
    for name, tensor in stored.items():
        if name in rooms and tensor.shape == rooms[name].shape:
            continue
        if name.startswith(OPTIMIZER) and name.removeprefix(OPTIMIZER).partition(":")[0] in elsewhere:
            continue  # the process that moves it looks at it
        if not NOT_READ.fullmatch(name):
            raise CorruptionError(f"{folder} holds {name[:60]}, which is not of this model's training")


def _hand_out(
    loaded: Mapping[str, Tensor], model: Transformer, optimizers: list[Optimizer], parallel: Parallel
) -> None:
    """Gives the optimizers their state."""
    states: dict[str, dict[str, Tensor]] = {}
    for name, value in loaded.items():
        if name.startswith(OPTIMIZER):
            owner, _, key = name.removeprefix(OPTIMIZER).partition(":")
            states.setdefault(owner, {})[key] = local(value)
    moved_here = _moved_here(model, parallel)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for moved in group["params"]:
                name, _ = moved_here[moved]
                optimizer.state[moved] = states.get(name, {})
