"""Batches made ahead of time by threads, while the device computes."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from seedbed.data.batches.batch import Batch, BatchSource

B = TypeVar("B", bound=Batch)


class Prefetch(Generic[B]):
    """A batch source over another: after a batch was asked for, the next ones of its size are made in threads.

    A batch is a pure function of its samples, so the same batches come for any number of workers, also when the guess
    was wrong and another one is asked for.
    """

    def __init__(self, source: BatchSource[B], workers: int, ahead: int = 4):
        self.source, self.ahead = source, ahead
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="batches")
        self._made: OrderedDict[tuple[int, int], Future[B]] = OrderedDict()

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint

    @property
    def samples(self) -> int:
        return self.source.samples

    def batch(self, first: int, count: int) -> B:
        """Samples first … first + count − 1, in that order."""
        wanted = [(first + i * count, count) for i in range(1 + self.ahead)]
        for key in [key for key in self._made if key not in wanted]:
            self._made.pop(key).cancel()
        for key in wanted:
            if key not in self._made:
                self._made[key] = self._pool.submit(self.source.batch, *key)
        return self._made.pop((first, count)).result()
