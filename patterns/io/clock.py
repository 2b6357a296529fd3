"""The clock of this process's engines. The only place that reads it for them."""

import time

_ahead_us = 0  # of the system's clock: only programs under test move it


def clock() -> int:
    """Microseconds, monotonic: the `now` of every engine in this process."""
    return time.monotonic_ns() // 1_000 + _ahead_us


def skip(duration_us: int) -> None:
    """Let so much time have passed; whoever sleeps does not see it: patterns.io.context.look_at_clock()."""
    global _ahead_us
    _ahead_us += duration_us


def skipped_us() -> int:
    """So much time was skipped in all."""
    return _ahead_us
