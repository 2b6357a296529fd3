"""The Publisher of the sync shell."""

from __future__ import annotations

from typing import Any

from patterns.core.publish import Lane, PeerPublisherEngine, PublisherEngine
from patterns.io.clock import clock
from patterns.io.driver import Driver
from patterns.io.links import SocketKind
from patterns.sync.role import (
    LINGER_MS,
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
from patterns.wire.errors import BadAddress, Overloaded, TimedOut

_LANES_REMEMBERED = 65_536  # topics whose lane is found without a check; then the table starts over


class Publisher(Role):
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
        refuse_security(security)
        addresses = resolve(address)
        self._timeout_s = timeout_s
        self._engine: PublisherEngine | PeerPublisherEngine
        if addresses[0].brokered:
            self._engine = PublisherEngine(addresses, new_nonce(), codec_of(codec), jitter)
            kind, binding, linger_ms = SocketKind.DEALER, False, 0
        else:
            if len(addresses) != 1:
                raise BadAddress("peer to peer a Publisher has one address; subscribers connect to several")
            self._engine = PeerPublisherEngine(addresses[0], new_nonce(), codec_of(codec))
            kind, binding, linger_ms = SocketKind.XPUB, binds(addresses[0], default=True), LINGER_MS
        self._lanes = self._engine.lanes
        self._lane_of: dict[str, Lane] = {}
        self._driver = Driver(
            self._engine,
            kind,
            self._take,
            binds=binding,
            before_turn=self._drain,
            in_background=self._wants_keeper,
            linger_ms=linger_ms,
        )
        self._driver.start()

    def _wants_keeper(self) -> bool:
        """On an XPUB of our own subscribers arrive at any time; behind a broker, until all has left."""
        engine = self._engine
        if engine.closed:
            return False
        return isinstance(engine, PeerPublisherEngine) or not engine.is_ready or engine.unsent > 0

    def _take(self, events: list[Any]) -> None:
        """The audience is read from the engine."""

    def _drain(self, now: int) -> None:
        batches = self._lanes.drain_all()
        if batches:
            self._engine.publish(batches, now)

    @property
    def address(self) -> str:
        """The address that subscribers connect to; a port 0 is filled in."""
        return self._driver.bound

    def publish(self, topic: str, body: Any, headers: dict[str, str] | None = None) -> None:
        """Publish one message.

        Args:
            topic: dotted, `orders.eu.created`.
            body: what the codec can express; not to be changed afterwards.
            headers: str to str.

        Raises:
            BadName: no topic.
            Overloaded: the broker has not taken what was published before within `timeout_s`.
            BadBody, TooLarge: of this message or an earlier one, which was left out.
            Closed, Forked, Unavailable.
        """
        try:
            lane = self._lane_of[topic]
        except KeyError:
            lane = self._find_lane(topic)
        items = lane.items
        items += (topic, body, headers)  # in one step, which no other thread can cut in two; a quarter off extend()
        if len(items) >= lane.limit:
            self._send(lane)
        elif not self._driver.kicked:
            self._driver.kick()

    def _find_lane(self, topic: str) -> Lane:
        self._driver.check()
        lane = self._lanes.lane(topic)
        if len(self._lane_of) >= _LANES_REMEMBERED:
            self._lane_of.clear()
        self._lane_of[topic] = lane
        return lane

    def _send(self, lane: Lane) -> None:
        """A batch is full: send it from here, and wait if the broker is slow."""
        driver, engine = self._driver, self._engine
        driver.check()
        driver.burst()
        if self._lanes.errors:
            raise self._lanes.errors.pop(0)
        if not engine.room and not driver.wait(self._has_room, deadline_of(self._timeout_s)):
            raise self._overloaded()

    def _has_room(self) -> bool:
        return self._engine.room or self._driver.is_closed or self._engine.error is not None

    def _overloaded(self) -> Exception:
        if not self._engine.is_ready:
            return self._engine.unavailable()
        return Overloaded(f"the broker has not taken {self._engine.unsent} published bytes within {self._timeout_s} s")

    def flush(self, timeout_s: float = 10.0) -> None:
        """Return when everything published was handed to the network. Raises TimedOut, and what publish() raises."""
        self._driver.check()
        deadline = deadline_of(timeout_s)
        if not self._driver.wait(self._has_left, deadline):
            if not self._engine.is_ready:
                raise self._engine.unavailable()
            raise TimedOut(f"{self._engine.unsent} bytes have not left within {timeout_s} s")
        raise_error(self._engine)
        if self._lanes.errors:
            raise self._lanes.errors.pop(0)

    def _has_left(self) -> bool:
        engine = self._engine
        return engine.error is not None or (engine.is_ready and self._lanes.is_empty and engine.unsent == 0)

    @property
    def batches(self) -> int:
        """How many batches have been made of what was published; says how well messages travel together."""
        return self._lanes.batches

    @property
    def subscribers(self) -> int:
        """How many subscribers are known to be there; plain SUB sockets are not counted."""
        return self._engine.audience

    def wait_for_subscribers(self, count: int = 1, timeout_s: float = 5.0) -> None:
        """Return when so many subscribers are there. Raises TimedOut, Unavailable."""
        self._driver.check()
        engine = self._engine
        if not self._driver.wait(lambda: engine.audience >= count or engine.error is not None, deadline_of(timeout_s)):
            if not engine.is_ready:
                raise engine.unavailable()
            raise TimedOut(f"{engine.audience} of {count} subscribers are there after {timeout_s} s")
        raise_error(engine)

    def close(self, timeout_s: float = 5.0) -> None:
        """Send what was published, then let go."""
        if not self._driver.is_closed and not self._driver.forked and self._engine.error is None:
            deadline = clock() + int(timeout_s * 1e6)
            self._driver.wait(lambda: self._has_left() or not self._engine.is_ready, deadline)
        super().close(timeout_s)
