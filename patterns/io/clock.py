"""The clock of this process's engines. The only place that reads it for them."""

import time


def clock() -> int:
    """Microseconds, monotonic: the `now` of every engine in this process."""
    return time.monotonic_ns() // 1_000
