"""The Subscriber of the sync shell."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from patterns.core.message import Bodies, Message, messages_of
from patterns.core.subscribe import PeerSubscriberEngine, Received, SubscriberEngine
from patterns.io.driver import Driver
from patterns.io.links import SocketKind
from patterns.sync.role import (
    Role,
    binds,
    codec_of,
    deadline_of,
    jitter,
    new_nonce,
    raise_error,
    refuse_security,
    resolve,
)
from patterns.wire.errors import BadArgument, BadBody


class Subscriber(Role):
    """Receives messages by topic, in order per publisher and channel; belongs to one thread.

    Args:
        address: of publishers, or `zb://` of brokers; several with commas. None: ZBROKER_URL.
        patterns: `orders.*.created`, `orders.>`; one or several.
        codec: what it prefers; bodies are decoded from whatever they come in.
        type: what bodies are validated as; a message that is not of it has a `body` that raises.
        idle_timeout_s: iteration ends when nothing came for so long.
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
        security: object = None,
    ) -> None:
        refuse_security(security)
        addresses = resolve(address)
        if not patterns:
            raise BadArgument("a Subscriber needs at least one pattern; '>' is everything")
        self._engine: SubscriberEngine | PeerSubscriberEngine
        if addresses[0].brokered:
            self._engine = SubscriberEngine(addresses, patterns, new_nonce(), codec_of(codec), jitter)
            kind, binding = SocketKind.DEALER, False
        else:
            self._engine = PeerSubscriberEngine(addresses, patterns, new_nonce())
            kind, binding = SocketKind.SUB, binds(addresses[0], default=False)
        self._bodies = Bodies(type)
        self._idle_timeout_s = idle_timeout_s
        self._batches: deque[Received] = deque()
        self._messages: Iterator[Message] | None = None
        self._driver = Driver(
            self._engine,
            kind,
            self._take,
            binds=binding,
            before_turn=self._grant,
            in_background=self._wants_keeper,
        )
        self._driver.start()

    def _wants_keeper(self) -> bool:
        return not self._engine.closed and not self._engine.is_listening

    def _take(self, events: list[Any]) -> None:
        self._batches.extend(event for event in events if isinstance(event, Received))

    def _grant(self, now: int) -> None:
        """Ask for more only when the caller has taken what came: its pace is the broker's."""
        if not self._batches:
            self._engine.taken(now)

    @property
    def address(self) -> str:
        """The address it is bound to, if it binds; a port 0 is filled in."""
        return self._driver.bound

    @property
    def lost(self) -> int:
        """Messages known to be missed: exact from broker to here, at least so many from publishers on."""
        return self._engine.loss.lost

    @property
    def interruptions(self) -> int:
        """Breaks of unknown size."""
        return self._engine.loss.interruptions

    def ready(self, timeout_s: float = 5.0) -> None:
        """Return when nothing that is published from now on through the listed addresses will be missed.

        Raises:
            Unavailable: one of the addresses has not answered in time; the text names it.
        """
        self._driver.check()
        engine = self._engine
        if not self._driver.wait(lambda: engine.is_listening or engine.error is not None, deadline_of(timeout_s)):
            raise engine.unavailable()
        raise_error(engine)

    def __iter__(self) -> Iterator[Message]:
        """Messages, until close() or idle_timeout_s without one. A second loop goes on where the first stopped."""
        if self._messages is None:
            self._messages = chain.from_iterable(self._arriving())
        return self._messages

    def _arriving(self) -> Iterator[Iterable[Message]]:
        driver, batches = self._driver, self._batches
        try:
            while True:
                while batches:
                    try:
                        messages = messages_of(batches.popleft(), self._bodies)
                    except BadBody:
                        self._engine.counters["malformed"] += 1
                        continue
                    yield messages
                if driver.is_over():
                    return
                if not batches and not driver.wait(self._has_news, deadline_of(self._idle_timeout_s)):
                    return
        finally:
            self._messages = None

    def _has_news(self) -> bool:
        return bool(self._batches) or self._driver.is_closed or self._engine.closed or self._engine.error is not None

    def receive(self, timeout_s: float | None = None) -> Message | None:
        """The next message; None when none came in time, or after close()."""
        before, self._idle_timeout_s = self._idle_timeout_s, timeout_s
        try:
            return next(iter(self), None)
        finally:
            self._idle_timeout_s = before
