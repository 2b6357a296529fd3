"""A process's two clocks: one for timers, and one for people and records, which may say anything."""

import time
from typing import Final

_LAST_MS: Final = 253_402_300_799_999  # of the year 9999: calendars end there, and no field on disk is below 0


def now_us() -> int:
    """Monotonic microseconds: the `now` of every engine in a process."""
    return time.monotonic_ns() // 1_000


def wall_ms() -> int:
    """Milliseconds since 1970, within the years 1970 to 9999 whatever the system says: never for a timer."""
    return min(max(time.time_ns() // 1_000_000, 0), _LAST_MS)


def wall_ms_at(now: int) -> int:
    """The same for an instant of now_us()."""
    return min(max((time.time_ns() // 1_000 + now - now_us()) // 1_000, 0), _LAST_MS)
