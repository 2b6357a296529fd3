"""How long syncs took: the last ones, for status. Measured by the disk, since the store has no clock."""

from collections import deque
from typing import Final

KEPT: Final = 1024  # enough for an honest p99


class Syncs:
    """Counts all, keeps the times of the last ones."""

    def __init__(self) -> None:
        self.count = 0
        self._us: deque[int] = deque(maxlen=KEPT)

    def note(self, took_us: int) -> None:
        """One more."""
        self.count += 1
        self._us.append(took_us)

    def status(self) -> dict[str, int]:
        """Of the last ones, in microseconds; 0 while there is none."""
        times = sorted(self._us)
        return {
            "syncs": self.count,
            "last_sync_us": self._us[-1] if self._us else 0,
            "sync_p50_us": _at(times, 0.50),
            "sync_p99_us": _at(times, 0.99),
        }


def _at(times: list[int], share: float) -> int:
    return times[min(len(times) - 1, int(len(times) * share))] if times else 0
