"""The Subscriber of the sync shell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from patterns.core.message import Message
from patterns.io.driver import Driver
from patterns.roles.arguments import check_timeout
from patterns.roles.subscriber import SubscriberRole
from patterns.sync.arriving import Arriving
from patterns.sync.role import SyncRole


class Subscriber(SubscriberRole[Driver], SyncRole):
    """Receives messages by topic, in order per publisher and channel; belongs to one thread.

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
        self._messages: Iterator[Message] | None = None
        self._arriving: Arriving[Iterable[Message]]
        super().__init__(
            Driver,
            address,
            patterns,
            codec=codec,
            type=type,
            idle_timeout_s=idle_timeout_s,
            overflow=overflow,
            security=security,
        )

    def ready(self, timeout_s: float = 5.0) -> None:
        """Return when nothing that is published from now on through the listed addresses will be missed.

        Raises:
            Unavailable: one of the addresses has not answered in time; the text names it.
        """
        self._driver.drive(self._ready(timeout_s))

    def __iter__(self) -> Iterator[Message]:
        """Messages, until close() or idle_timeout_s without one. A second loop goes on where the first stopped."""
        if self._messages is None:
            self._arriving = Arriving("Subscriber", self._take_batch, self._forget)
            self._messages = chain.from_iterable(self._arriving)
        self._arriving.check()
        return self._messages

    def _take_batch(self) -> Iterable[Message] | None:
        return self._taken(lambda: self._next_messages(self._idle_timeout_s))

    def _forget(self) -> None:
        self._messages = None

    def receive(self, timeout_s: float | None = None) -> Message | None:
        """The next message; None when none came in time, or after close()."""
        check_timeout(timeout_s)
        before, self._idle_timeout_s = self._idle_timeout_s, timeout_s
        try:
            return next(iter(self), None)
        finally:
            self._idle_timeout_s = before
