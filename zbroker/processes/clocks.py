"""A process's two clocks: one for timers, and one for people and records, which may say anything."""

import time

from zbroker.store.os_disk import LAST_MS, wall_ms

__all__ = ["now_us", "wall_ms", "wall_ms_at"]


def now_us() -> int:
    """Monotonic microseconds: the `now` of every engine in a process."""
    return time.monotonic_ns() // 1_000


def wall_ms_at(now: int) -> int:
    """The same for an instant of now_us()."""
    return min(max((time.time_ns() // 1_000 + now - now_us()) // 1_000, 0), LAST_MS)
