"""Tensors that are made a second time in the backward pass, since what they are made of is kept anyway.

Of a norm, a gate or a rotation autograd keeps the inputs; the product that reads the result would keep that as well.
Within `Recipes` it keeps a function and those inputs instead, for a few percent of the time
(Chen et al. 2016, arXiv:1604.06174, §3, at the grain of a formula; see `training.recompute` for whole blocks).
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

_active: ContextVar[Recipes | None] = ContextVar("active", default=None)


def remade(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """function(*inputs), which within `Recipes` is kept as a recipe. It must give the same each time. What it reads is
    kept, unless that is made by a recipe too."""
    output = function(*inputs)
    if not torch.compiler.is_compiling() and (recipes := _active.get()) is not None:
        recipes.add(output, function, inputs)
    return output


@dataclass
class Recipe:
    """How a tensor is made. What it makes is held until all who keep it have read it."""

    function: Callable[..., Tensor]
    inputs: list[Any]
    readers: int = 0
    made: Tensor | None = None

    def make(self) -> Tensor:
        self.readers -= 1
        made = self.made
        if made is None:
            with torch.no_grad():
                made = self.function(*map(_unpack, self.inputs))
        self.made = made if self.readers > 0 else None
        return made


@dataclass(frozen=True)
class Held:
    """A tensor that is kept as it is, and how often it had been changed by then: with hooks, torch looks no longer."""

    tensor: Tensor
    version: int

    def get(self) -> Tensor:
        if self.tensor._version != self.version:
            raise RuntimeError("a tensor that the backward pass needs was changed in place after the forward pass")
        return self.tensor


@dataclass(frozen=True)
class View:
    """Of what a recipe makes."""

    recipe: Recipe
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int | torch.SymInt


class Recipes(saved_tensors_hooks):
    """Within it autograd keeps recipes of what `remade` returns, and of its views."""

    def __init__(self) -> None:
        super().__init__(self._pack, _unpack)
        # By the memory they lie in; the weak reference is held so that no other tensor gets that address meanwhile.
        self.known: dict[int, tuple[StorageWeakRef, Recipe]] = {}

    def add(self, output: Tensor, function: Callable[..., Tensor], inputs: tuple[Any, ...]) -> None:
        if not output.requires_grad or type(output) is not Tensor:
            return  # nobody keeps it, or it lies on several processes
        self.known = {place: entry for place, entry in self.known.items() if not entry[0].expired()}
        storage = StorageWeakRef(output.untyped_storage())
        if storage.cdata not in self.known:  # else a function returned its input
            packed = [self._pack(value.detach()) if isinstance(value, Tensor) else value for value in inputs]
            self.known[storage.cdata] = storage, Recipe(function, packed)

    def _pack(self, tensor: Tensor) -> Held | View:
        _, recipe = self.known.get(tensor.untyped_storage()._cdata, (None, None))
        if recipe is None:
            return Held(tensor, tensor._version)
        recipe.readers += 1
        return View(recipe, tensor.size(), tensor.stride(), tensor.storage_offset())

    def __enter__(self) -> None:
        self.token = _active.set(self)
        super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        _active.reset(self.token)
        self.known.clear()  # what is kept from here on, the graph holds


def _unpack(kept: Any) -> Any:
    if isinstance(kept, View):
        return kept.recipe.make().as_strided(kept.size, kept.stride, kept.offset)
    return kept.get() if isinstance(kept, Held) else kept
