"""The text of a continuation as it grows, held back where a stop text may be beginning."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

from seedbed.tokenizers.tokenizer import TokenStream


class StopText:
    """Takes tokens, gives text that is certain: whole characters that belong to no stop text, not even half of one."""

    def __init__(self, stream: TokenStream, stops: Sequence[str]):
        self.stream = stream
        self.stops = stops
        self.held = ""
        self.whole = ""
        """All text given so far."""
        self.stopped = False

    def push(self, token: int, *, may_stop: bool = True) -> str:
        """The text that is certain after one more token. Unless it `may_stop`, no stop text is looked for in it."""
        return self._give(self.stream.push(token), self.stops if may_stop else (), last=False)

    def fork(self) -> StopText:
        """Another one that stands where this one stands."""
        other = copy(self)
        other.stream = self.stream.fork()
        return other

    def flush(self) -> str:
        """What was held back, now that no token follows."""
        return "" if self.stopped else self._give(self.stream.flush(), self.stops, last=True)

    def _give(self, text: str, stops: Sequence[str], *, last: bool) -> str:
        self.held += text
        found = [(place + len(stop), place) for stop in stops if (place := self.held.find(stop)) >= 0]
        if found:  # the one that is complete first counts, wherever the borders of tokens are
            self.stopped = True
            given, self.held = self.held[: min(found)[1]], ""
        else:
            keep = 0 if last else self._beginning_of_stop(stops)
            cut = len(self.held) - keep
            given, self.held = self.held[:cut], self.held[cut:]
        self.whole += given
        return given

    def _beginning_of_stop(self, stops: Sequence[str]) -> int:
        """Length of the longest end of `held` with which some stop text begins."""
        longest = max((len(stop) - 1 for stop in stops), default=0)
        for size in range(min(longest, len(self.held)), 0, -1):
            if any(stop.startswith(self.held[-size:]) for stop in stops):
                return size
        return 0
