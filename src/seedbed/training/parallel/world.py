"""The processes that train together, one a device, and what they say to each other outside the model."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from seedbed.errors import SeedbedError

T = TypeVar("T")


class PeerError(RuntimeError):
    """Another process of the run has failed, and tells why."""


@dataclass(frozen=True)
class World:
    """This process among those of the run. Every method but the properties is a meeting: all of them must call it."""

    rank: int = 0
    """Number of this process."""

    size: int = 1
    """How many there are."""

    @classmethod
    def here(cls) -> World:
        """The processes that torchrun or `launch` started; this one alone when neither did."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls()

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes records, shows the run and settles what all go by."""
        return self.rank == 0

    def tell(self, message: T | None = None) -> T:
        """What the leader says, to all of them."""
        if self.size == 1:
            return message  # type: ignore[return-value]  # alone, one leads
        box: list[Any] = [message]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def led(self, work: Callable[[], T]) -> T:
        """What comes out when the leader does some work, while the others wait for it; a SeedbedError comes to all."""
        if self.size == 1:
            return work()
        result: T | None = None
        error: SeedbedError | None = None
        if self.leads:
            try:
                result = work()
            except SeedbedError as raised:
                error = raised
        result, error = self.tell((result, error))
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # of the leader

    def sum(self, numbers: Sequence[float]) -> list[float]:
        """Of all processes, number by number, the same bits everywhere."""
        if self.size == 1:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def share(self, count: int) -> slice:
        """The stretch of so many places that this process takes; that of the next begins where it ends."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def gather(self, part: T) -> list[T]:
        """What each process has, in their order."""
        parts: list[Any] = [part] * self.size
        if self.size > 1:
            dist.all_gather_object(parts, part)
        return parts

    def join(self, tensor: Tensor) -> Tensor:
        """One on the CPU of which each process has filled its share and left nought elsewhere, whole."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def any(self, is_so: bool) -> bool:
        """Whether it is so in one of them at least."""
        return self.sum([float(is_so)])[0] > 0

    def wait(self) -> None:
        """Until all are here."""
        self.any(False)


def local_rank() -> int:
    """Number of this process among those of its machine: which of its devices it takes."""
    return int(os.environ.get("LOCAL_RANK", 0))
