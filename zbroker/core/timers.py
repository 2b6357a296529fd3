"""Calls that are due at an instant. Microseconds on the engine's clock; equal instants in the order they were set."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush


class Timers:
    """A heap of calls; none is taken back: a call that finds nothing to do does nothing."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Callable[[int], None]]] = []
        self._count = 0

    def at(self, due: int, call: Callable[[int], None]) -> None:
        """Call with `now` once `due` has come."""
        self._count += 1
        heappush(self._heap, (due, self._count, call))

    def next_timeout(self) -> int | None:
        """The earliest instant set."""
        return self._heap[0][0] if self._heap else None

    def handle_timeout(self, now: int) -> None:
        """Make the calls that are due."""
        while self._heap and self._heap[0][0] <= now:
            heappop(self._heap)[2](now)
