"""The engine for coroutines: one thread makes its steps, everyone else waits without holding anyone up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Thread
from typing import Any

from seedbed.errors import BusyError
from seedbed.inference.config import SamplingConfig
from seedbed.inference.engine import Engine, Event
from seedbed.inference.generation import Completion, Generation

logger = logging.getLogger(__name__)

MOST_REQUESTS = 1024
"""Under way or waiting; who comes then is refused at once instead of waiting for minutes."""


@dataclass(eq=False)
class Listener:
    """Who waits for a generation."""

    loop: asyncio.AbstractEventLoop
    events: asyncio.Queue[Event | BaseException] = field(default_factory=asyncio.Queue)
    generation: Generation | None = None
    gone: bool = False
    """It listens no longer."""

    def tell(self, event: Event | BaseException) -> None:
        """From any thread."""
        try:
            self.loop.call_soon_threadsafe(self.events.put_nowait, event)
        except RuntimeError:  # its event loop is closed
            self.gone = True


class AsyncEngine:
    """`stream` and `complete` for any number of coroutines, which share the steps of one engine."""

    def __init__(self, engine: Engine, *, most: int = MOST_REQUESTS):
        self.engine, self.most = engine, most
        self.listeners: set[Listener] = set()
        self._wishes: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._by_generation: dict[Generation, Listener] = {}
        self._broken: BaseException | None = None
        self._thread = Thread(target=self._run, name="seedbed-engine", daemon=True)
        self._thread.start()

    async def stream(
        self,
        ids: Sequence[int],
        sampling: SamplingConfig,
        *,
        sample: int = 0,
        salt: bytes = b"",
        adapter: str | None = None,
    ) -> AsyncIterator[Event]:
        """Text as it comes. Raises DataError for what the engine refuses, BusyError when too many are waiting. Who is
        cancelled, or stops listening, takes the request back."""
        self.engine.check(ids, sampling, adapter)
        if self._broken is not None:
            raise RuntimeError("the engine has stopped") from self._broken
        if len(self.listeners) >= self.most:
            raise BusyError(f"{self.most:,} requests are being answered already", "Ask again later.")
        listener = Listener(asyncio.get_running_loop())
        self.listeners.add(listener)
        asked = {"sample": sample, "salt": salt, "adapter": adapter}
        self._wishes.put(lambda: self._submit(listener, ids, sampling, asked))
        try:
            while True:
                event = await listener.events.get()
                if isinstance(event, BaseException):
                    raise event
                yield event
                if event.completion is not None:
                    return
        finally:
            listener.gone = True
            self.listeners.discard(listener)
            self._wishes.put(lambda: self._cancel(listener))

    async def complete(
        self,
        ids: Sequence[int],
        sampling: SamplingConfig,
        *,
        sample: int = 0,
        salt: bytes = b"",
        adapter: str | None = None,
    ) -> Completion:
        """The whole answer."""
        async for event in self.stream(ids, sampling, sample=sample, salt=salt, adapter=adapter):
            if event.completion is not None:
                return event.completion
        raise AssertionError("a stream ends with a completion")

    def close(self) -> None:
        """Ends the thread after its step; who still waits is told, and what was asked is taken back."""
        self._wishes.put(None)
        self._thread.join()

    # In the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._fulfil():
                self._step()
            raise RuntimeError("the engine was closed")
        except BaseException as error:
            self._broken = error
            if self._by_generation:
                logger.warning("the engine stopped: %s", error)
            while self._by_generation:
                self.engine.cancel(self._by_generation.popitem()[0])
            for listener in list(self.listeners):
                listener.tell(error)

    def _step(self) -> None:
        for generation, text in self.engine.step():
            self._tell(generation, text)

    def _fulfil(self) -> bool:
        """Does what was wished meanwhile, and waits for a wish when there is nothing to do. False: to close."""
        while not self._wishes.empty() or not self._by_generation:
            wish = self._wishes.get()
            if wish is None:
                return False
            wish()
            del wish  # while it waits for the next one, nothing of the last one is kept
        return True

    def _submit(
        self, listener: Listener, ids: Sequence[int], sampling: SamplingConfig, asked: Mapping[str, Any]
    ) -> None:
        if listener.gone:
            return
        try:
            listener.generation = self.engine.submit(ids, sampling, **asked)
        except Exception as error:  # what is wrong with one request is no matter of the others
            listener.tell(error)
        else:
            self._by_generation[listener.generation] = listener

    def _cancel(self, listener: Listener) -> None:
        if listener.generation is not None and self._by_generation.pop(listener.generation, None) is not None:
            self.engine.cancel(listener.generation)

    def _tell(self, generation: Generation, text: str) -> None:
        listener = self._by_generation[generation]
        if generation.error is not None:
            listener.tell(generation.error)
        elif text or generation.reason is not None:
            listener.tell(Event(0, text, None if generation.reason is None else generation.completion))
        if generation.reason is not None:
            del self._by_generation[generation]
        elif listener.gone:
            self._cancel(listener)
