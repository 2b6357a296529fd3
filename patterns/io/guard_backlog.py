"""Which peers do not take what waits for them. libzmq's queue for a plain subscriber is bounded in messages, not in bytes, and no
one can look into it; but the kernel knows whose send queue does not move.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from patterns.io.guard_account import Account

LOOK_US: Final = 250_000
"""A peer that reads takes something in a quarter of a second, however slow its line."""


class Outgoing(Protocol):
    """What the kernel knows of a connection's other direction."""

    def acknowledged_bytes(self, fd: int) -> int: ...
    def unsent_bytes(self, fd: int) -> int: ...


class Backlog:
    """Two looks at the same connections, a while apart.

    Args:
        kernel: where to look; None: nowhere, and look() is never called.
    """

    def __init__(self, kernel: Outgoing | None) -> None:
        self._kernel = kernel
        self._before: dict[int, int] = {}  # by cookie, the bytes acknowledged at the first look
        self._looked_at: int | None = None

    def forget(self) -> None:
        """Nothing presses any more."""
        self._before.clear()
        self._looked_at = None

    def deaf(self, accounts: Iterable[Account], now: int) -> list[Account] | None:
        """Those for whom something waited at both looks, and who have taken nothing of it in between.

        Returns:
            None when it is too early to say, since this is the first look or hardly later.
        """
        assert self._kernel is not None
        waiting = {account.cookie: account for account in accounts if self._kernel.unsent_bytes(account.fd) > 0}
        acknowledged = {cookie: self._kernel.acknowledged_bytes(account.fd) for cookie, account in waiting.items()}
        if self._looked_at is None:
            self._before, self._looked_at = acknowledged, now
        if now - self._looked_at < LOOK_US:
            return None if self._before else []
        found = [waiting[cookie] for cookie, taken in acknowledged.items() if self._before.get(cookie) == taken]
        self.forget()
        return found
