"""The Admin of the asyncio shell."""

from __future__ import annotations

from typing import Any

from patterns.aio.driver import AioDriver
from patterns.aio.role import AioRole
from patterns.roles.admin import AdminRole


class Admin(AdminRole[AioDriver], AioRole):
    """Asks a broker about itself; tasks of one loop may share it.

    Args:
        address: `zb://` of brokers. None: ZBROKER_URL.
        timeout_s: how long a verb waits for its answer, the connection included.
        security: not built yet.

    Raises:
        BadAddress; NotInThisDeployment peer to peer.
    """

    def __init__(self, address: str | None = None, *, timeout_s: float = 5.0, security: object = None) -> None:
        super().__init__(AioDriver, address, timeout_s=timeout_s, security=security)

    async def status(self) -> dict[str, Any]:
        """What the broker holds and does: `streams`, `groups`, `services`, `subscriptions`, `sessions`, `counters`,
        `refused`, `guard`, `journal`, `warnings`, and more; SPEC.md 10.1 has what is counted.

        Raises:
            Unavailable: no broker answers.
            TimedOut: it has not answered in time.
            OutcomeUnknown: the connection broke before it did.
        """
        return await self._driver.drive(self._status())
