"""How long to wait before the next try. Pure: the random part is passed in."""

from __future__ import annotations

from collections.abc import Callable

Jitter = Callable[[], float]  # a number in [0, 1), new at each call


class Backoff:
    """Doubling waits between a least and a most, each shortened by up to half at random."""

    def __init__(self, least_us: int, most_us: int, jitter: Jitter) -> None:
        self._least_us = least_us
        self._most_us = most_us
        self._jitter = jitter
        self._wait_us = least_us

    def next(self) -> int:
        """Microseconds to wait before the next try."""
        wait_us = self._wait_us
        self._wait_us = min(2 * wait_us, self._most_us)
        return int(wait_us * (1 - self._jitter() / 2))

    def reset(self) -> None:
        """It worked."""
        self._wait_us = self._least_us
