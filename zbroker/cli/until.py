"""--count and --timeout: how long a command that takes messages goes on."""

from __future__ import annotations

from patterns.io.clock import clock
from patterns.wire.errors import TimedOut


class Until:
    """Counts down messages and time, both optional."""

    def __init__(self, count: int | None, timeout_s: float | None) -> None:
        self._count = count
        self._timeout_s = timeout_s
        self._deadline = None if timeout_s is None else clock() + int(timeout_s * 1e6)
        self.done = 0

    @property
    def goes_on(self) -> bool:
        """Whether there is another message to take."""
        return self._count is None or self.done < self._count

    def had_one(self) -> None:
        self.done += 1

    @property
    def remaining_s(self) -> float | None:
        """Seconds left, at least 0; None: no limit."""
        return None if self._deadline is None else max(0.0, (self._deadline - clock()) / 1e6)

    def at_most(self, seconds: float) -> float:
        """So long, but not longer than what is left."""
        remaining_s = self.remaining_s
        return seconds if remaining_s is None else min(seconds, remaining_s)

    def time_is_up(self, what: str) -> None:
        """Raises TimedOut if --count promised more; without --count the end of the time is the end of the work."""
        if self._count is not None:
            raise TimedOut(f"{self.done} of {self._count} {what} came within {self._timeout_s:g} s")
