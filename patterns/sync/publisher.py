"""The Publisher of the sync shell."""

from __future__ import annotations

from typing import Any

from patterns.io.driver import Driver
from patterns.roles.publisher import PublisherRole
from patterns.sync.role import SyncRole
from patterns.wire.attributes import check_headers


class Publisher(PublisherRole[Driver], SyncRole):
    """Publishes messages by topic, live and at most once; threads may share it.

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
        super().__init__(Driver, address, codec=codec, timeout_s=timeout_s, security=security)

    def publish(self, topic: str, body: Any, headers: dict[str, str] | None = None) -> None:
        """Publish one message.

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

        A call that raises has not taken its message; what earlier calls took stays and leaves in order.
        """
        try:
            lane = self._lane_of[topic]
        except (KeyError, TypeError):  # a new topic; what is none at all, and cannot be hashed
            lane = self._find_lane(topic)
        if headers is not None:
            check_headers(headers)
        items = lane.items
        driver = self._driver
        if len(items) >= lane.limit:
            driver.drive(self._make_room(lane))
            items += (topic, body, headers)
            if len(items) >= lane.full:
                driver.burst()  # it is a batch of its own
                return
        else:
            items += (topic, body, headers)  # in one step, which no other thread can cut in two; a quarter off extend()
        if not driver.kicked:
            driver.kick()

    def flush(self, timeout_s: float = 10.0) -> None:
        """Return when everything published was handed to the network. Raises TimedOut, and what publish() raises."""
        self._driver.drive(self._flush(timeout_s))

    def wait_for_subscribers(self, count: int = 1, timeout_s: float = 5.0) -> None:
        """Return when so many subscribers are there. Raises TimedOut, Unavailable."""
        self._driver.drive(self._wait_for_subscribers(count, timeout_s))
