"""Virtual time: a heap of calls, and the clock that jumps from one to the next. Nothing here waits, and nothing is random."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush


class Scheduler:
    """Calls by instant; equal instants in the order in which they were set, so a run depends on nothing else.

    Attributes:
        now: integer microseconds; advances only between calls.
        steps: calls made.
    """

    def __init__(self, now: int = 1_000_000) -> None:
        self.now = now
        self.steps = 0
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, due: int, call: Callable[[], None]) -> None:
        """Call once `due` has come; what is overdue comes next."""
        self._count += 1
        heappush(self._heap, (due if due > self.now else self.now, self._count, call))

    def after(self, delay: int, call: Callable[[], None]) -> None:
        """Call `delay` microseconds from now."""
        self.at(self.now + delay, call)

    def step(self) -> bool:
        """Make the earliest call; False when there is none."""
        if not self._heap:
            return False
        self.now, _, call = heappop(self._heap)
        self.steps += 1
        call()
        return True

    def run(self, until: int) -> None:
        """Make all calls that are due by `until`, which is the time then."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.step()
        self.now = max(self.now, until)
