"""The Subscriber of the asyncio shell."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from patterns.aio.driver import AioDriver
from patterns.aio.role import AioRole, Arrivals
from patterns.core.message import Message
from patterns.roles.subscriber import SubscriberRole


class Subscriber(SubscriberRole[AioDriver], AioRole):
    """Receives messages by topic, in order per publisher and channel; belongs to one loop.

    Args:
        address: of publishers, or `zb://` of brokers; several with commas. None: ZBROKER_URL.
        patterns: `orders.*.created`, `orders.>`; one or several.
        codec: what it prefers; bodies are decoded from whatever they come in.
        type: what bodies are validated as; a message that is not of it has a `body` that raises.
        idle_timeout_s: iteration ends when nothing came for so long.
        overflow: what it loses when it takes too slowly and the broker holds all that it may (8 MiB): "drop_newest",
            "drop_oldest", both counted in `lost`, or "disconnect": what was sent arrives, then SlowSubscriber is raised.
            Peer to peer libzmq drops the newest.
        security: not built yet.

    Raises:
        BadAddress, BadName, BadArgument, NotInThisDeployment.
    """

    def __init__(
        self,
        address: str | None = None,
        *patterns: str,
        codec: str = "msgpack",
        type: Any = Any,
        idle_timeout_s: float | None = None,
        overflow: str = "drop_newest",
        security: object = None,
    ) -> None:
        super().__init__(
            AioDriver,
            address,
            patterns,
            codec=codec,
            type=type,
            idle_timeout_s=idle_timeout_s,
            overflow=overflow,
            security=security,
        )
        self._arrivals = Arrivals(self._more, idle_timeout_s)

    async def ready(self, timeout_s: float = 5.0) -> None:
        """Return when nothing that is published from now on through the listed addresses will be missed.

        Raises:
            Unavailable: one of the addresses has not answered in time; the text names it.
        """
        await self._driver.drive(self._ready(timeout_s))

    def __aiter__(self) -> AsyncIterator[Message]:
        """Messages, until close() or idle_timeout_s without one. A second loop goes on where the first stopped."""
        return self._arrivals

    async def _more(self, timeout_s: float | None) -> Iterable[Message] | None:
        return await self._driver.drive(self._next_messages(timeout_s))

    async def receive(self, timeout_s: float | None = None) -> Message | None:
        """The next message; None when none came in time, or after close()."""
        return await self._arrivals.receive(timeout_s)
