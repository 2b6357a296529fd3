"""How long the caller computes: when its leases are to be extended, and when it has had its time. No message, no session."""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from patterns.wire.limits import HEARTBEAT_MS

LEASE_US: Final = 30_000_000  # until JOINED says what it is
EXTENSIONS: Final = 3  # in the time of one lease, so that two may get lost
LOOK_US_MIN: Final = 20_000


class Handling:
    """The clock of a consumer's handler, which runs from the last sign of life: something lent, taken or settled.

    What a loop settles is told when somebody looks, so four looks fall into the time that it has: that is how exactly it
    is kept.

    Args:
        max_us: how long a handler may compute without a sign of life.

    Attributes:
        max_us: of these; may change.
        lease_us: how long the broker's lease lasts without an extension.
        is_short: heartbeats come too rarely to keep it, so somebody must drive all the time.
    """

    __slots__ = (
        "_began",
        "_extended_at",
        "_kept",
        "_look_us",
        "_looked_at",
        "_progress_at",
        "is_short",
        "lease_us",
        "max_us",
    )

    def __init__(self, max_us: int) -> None:
        self.set(LEASE_US, max_us)
        self._began = False
        self._progress_at = self._looked_at = self._extended_at = 0
        self._kept: dict[int, int] = {}  # leases that the caller has extended itself, and until when

    def set(self, lease_us: int, max_us: int) -> None:
        """The broker says how long its leases last, and how long its group lets a handler compute."""
        self.lease_us, self.max_us = lease_us, max_us
        self._look_us = min(lease_us // EXTENSIONS, max(max_us // 4, LOOK_US_MIN))
        self.is_short = self._look_us < HEARTBEAT_MS * 1_000

    def lent(self, now: int) -> None:
        """Something is there, and nothing was before."""
        self._progress_at = now

    def progress(self, now: int) -> None:
        """The caller has taken or settled something."""
        self._began = True
        self._progress_at = now

    def keep(self, lease: int, until: int) -> None:
        """The caller says itself how long it takes."""
        self._kept[lease] = until

    def next_look(self) -> int:
        """When to look again."""
        return max(self._progress_at, self._looked_at) + self._look_us

    def looks(self, now: int) -> bool:
        """Whether it is time to look; then it is noted."""
        if now < self.next_look():
            return False
        self._looked_at = now
        return True

    def extends(self, now: int) -> bool:
        """Whether leases are to be extended again; then it is noted."""
        if now < max(self._progress_at, self._extended_at) + self.lease_us // EXTENSIONS:
            return False
        self._extended_at = now
        return True

    def is_over(self, now: int, leases: Container[int]) -> bool:
        """Whether the caller has had its time, with these leases in its hands."""
        unbegun_us = (
            2 * self.lease_us // 3
        )  # what waits for a caller that never began is nobody's work: before its lease ends
        limit = self.max_us if self._began else min(self.max_us, unbegun_us)
        if now - self._progress_at < limit:
            return False
        self._kept = {lease: until for lease, until in self._kept.items() if until > now and lease in leases}
        return not self._kept
