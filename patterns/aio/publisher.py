"""The Publisher of the asyncio shell."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from patterns.aio.driver import AioDriver
from patterns.aio.role import AioRole
from patterns.roles.publisher import PublisherRole
from patterns.wire.attributes import check_headers

_STRETCH: Final = 1_000  # messages; then the loop has its turn, so that what was published can leave


class Publisher(PublisherRole[AioDriver], AioRole):
    """Publishes messages by topic, live and at most once; tasks of one loop may share it.

    Messages are collected and leave in batches: when a batch is full, and as soon as there is time. A body must not be
    changed after it was handed over.

    Args:
        address: one that it binds, or `zb://` of brokers. None: ZBROKER_URL.
        codec: of the bodies.
        timeout_s: how long publish() may wait for a slow broker.
        security: not built yet.

    Raises:
        BadAddress, BadArgument, NotInThisDeployment; Unavailable when the address cannot be bound.
    """

    def __init__(
        self, address: str | None = None, *, codec: str = "msgpack", timeout_s: float = 5.0, security: object = None
    ) -> None:
        self._stretch = 0  # messages since the loop had its turn
        super().__init__(AioDriver, address, codec=codec, timeout_s=timeout_s, security=security)

    async def publish(self, topic: str, body: Any, headers: dict[str, str] | None = None) -> None:
        """Publish one message; waits when the broker is slow, and lets the loop turn after every full batch.

        Args:
            topic: dotted, `orders.eu.created`.
            body: what the codec can express; not to be changed afterwards.
            headers: str to str.

        Raises:
            BadName: no topic.
            BadArgument, TooLarge: headers that are not str to str, or above 64 KiB.
            Overloaded: the broker has not taken what was published before within `timeout_s`.
            BadBody, TooLarge: an earlier message could not be sent and was left out.
            Closed, Forked, Unavailable.

        A call that raises, or is cancelled, has not taken its message; what earlier calls took stays and leaves in order.
        """
        try:
            lane = self._lane_of[topic]
        except (KeyError, TypeError):  # a new topic; what is none at all, and cannot be hashed
            lane = self._find_lane(topic)
        if headers is not None:
            check_headers(headers)
        items = lane.items
        self._stretch += 1
        if len(items) >= lane.limit:
            self._stretch = 0
            await self._driver.drive(self._make_room(lane))
            await asyncio.sleep(0)
            items += (topic, body, headers)
            if len(items) >= lane.full:
                self._driver.burst()  # it is a batch of its own
                return
        else:
            if self._stretch >= _STRETCH:
                self._stretch = 0
                await asyncio.sleep(0)
            items += (topic, body, headers)  # a quarter off extend()
        if not self._driver.kicked:
            self._driver.kick()

    async def flush(self, timeout_s: float = 10.0) -> None:
        """Return when everything published was handed to the network. Raises TimedOut, and what publish() raises."""
        await self._driver.drive(self._flush(timeout_s))

    async def wait_for_subscribers(self, count: int = 1, timeout_s: float = 5.0) -> None:
        """Return when so many subscribers are there. Raises TimedOut, Unavailable."""
        await self._driver.drive(self._wait_for_subscribers(count, timeout_s))
