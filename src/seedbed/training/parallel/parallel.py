"""How one process takes part in training: which rows are its own, what it adds up with others, what it moves.

The trainer holds one `Parallel` and asks it at the few places where several processes differ from one. This class is
one process alone; the others are built on it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from seedbed.model.transformer import Transformer
from seedbed.training.objective import Tally
from seedbed.training.parallel.world import World


@dataclass(frozen=True)
class Rows:
    """Samples that pass through the model at once."""

    first: int
    count: int
    spare: bool = False
    """They are another pass's, and count for nothing: where weights are gathered for each pass, every process has to
    make as many of them as the others."""


def share(first: int, count: int, most: int, replica: int, replicas: int) -> Iterator[Rows]:
    """The passes of one of several replicas through samples first … first + count − 1, at most so many at a time.

    The shares are stretches in the order of the replicas, none more than one row longer than another.
    """
    begin, end = (count * number // replicas for number in (replica, replica + 1))
    for place in range(begin, begin + math.ceil(count / replicas), most):
        if place < end:
            yield Rows(first + place, min(most, end - place))
        else:
            yield Rows(first, 1, spare=True)


class Parallel:
    """One process: all rows and weights are its own, and there is nobody to agree with."""

    replica, replicas = 0, 1
    """Which share of the rows this process takes, of how many."""

    def __init__(self, model: Transformer, world: World):
        self.model, self.world = model, world

    def seed(self, words: str) -> None:
        """What chance does next follows from these words alone, otherwise in each replica: they see other rows."""
        torch.manual_seed(random.Random(words + (f", {self.replica}" if self.replica else "")).getrandbits(63))

    def rows(self, first: int, count: int, most: int) -> Iterator[Rows]:
        """What passes through the model here, of the samples of one step."""
        return share(first, count, most, self.replica, self.replicas)

    def total(self, tally: Tally, tokens: int) -> tuple[Tally, int]:
        """Over all rows of the step."""
        return tally, tokens

    def sum_gradients(self) -> None:
        """Adds up what the replicas have found, once all rows of a step have passed."""

    def norm(self, gradients: Sequence[Tensor]) -> float:
        """Of all gradients as one vector."""
        return float(torch.nn.utils.get_total_norm(gradients))

    def divide(self, optimizers: list[Optimizer]) -> list[Optimizer]:
        """The optimizers, each left with what this process moves."""
        return optimizers

    def moved(self, parameter: nn.Parameter) -> nn.Parameter | None:
        """What an optimizer moves in this process in place of a parameter; None where another process does."""
        return parameter

    def moves_whole(self, parameter: nn.Parameter) -> bool:
        """Whether what is moved here in place of a parameter is all of it."""
        return True

    def like(self, parameter: nn.Parameter, value: Tensor) -> Tensor:
        """State of what is moved here, as the piece of a whole tensor that it is."""
        return value

    def update(self, optimizers: list[Optimizer]) -> None:
        """One step of every optimizer, after which all processes have the new weights."""
        for optimizer in optimizers:
            optimizer.step()

    def rest(self) -> None:
        """After passes that no backward followed."""

    def whole_model(self) -> Transformer | None:
        """The model with all of its weights, in the leading process."""
        return self.model if self.world.leads else None


def local(tensor: Tensor) -> Tensor:
    """What this process holds of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def in_place_of(tensor: Tensor, held: Tensor) -> Tensor:
    """Other numbers for what this process holds of a tensor, as the same piece of a whole."""
    return DTensor(held, tensor._spec, requires_grad=False) if isinstance(tensor, DTensor) else held
