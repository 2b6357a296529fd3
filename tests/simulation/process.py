"""A virtual process: it takes turns when woken or when something is due, and can be stalled or killed."""

from __future__ import annotations

from collections.abc import Callable

from zbroker.testing.scheduler import Scheduler


class Process:
    """Wakes are merged: one turn for all that came before it.

    Args:
        latency_us: from a wake until the turn begins; the system's own slowness.

    Attributes:
        is_alive: until killed; a dead process never takes a turn.
    """

    def __init__(self, scheduler: Scheduler, turn: Callable[[], None], latency_us: int) -> None:
        self._scheduler = scheduler
        self._turn = turn
        self._latency_us = latency_us
        self._busy_until = 0
        self._turn_at: int | None = None
        self._number = 0
        self.is_alive = True
        self.stalled_until = -(1 << 40)

    def wake(self) -> None:
        """Something is there to do."""
        self.due(self._scheduler.now)

    def due(self, at: int) -> None:
        """Something will be."""
        at = max(at, self._busy_until, self._scheduler.now) + self._latency_us
        if self.is_alive and (self._turn_at is None or at < self._turn_at):
            self._turn_at = at
            self._number += 1
            number = self._number
            self._scheduler.at(at, lambda: self._begin(number))

    def busy(self, us: int) -> None:
        """The process cannot begin a turn for so long: it computes, or somebody has stopped it."""
        self._busy_until = self.stalled_until = max(self._busy_until, self._scheduler.now + us)
        at, self._turn_at = self._turn_at, None
        if at is not None:
            self.due(at)

    def kill(self) -> None:
        """No turn any more."""
        self.is_alive = False

    def _begin(self, number: int) -> None:
        if not self.is_alive or number != self._number:
            return
        self._turn_at = None
        self._turn()
