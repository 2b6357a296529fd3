"""The Publisher: publishes messages by topic.

publish() itself stands in both shells: it is the hottest call of all, and a call between would cost a third of it.
"""

from __future__ import annotations

import logging
from typing import Any

from patterns.core.publish import Lane, PeerPublisherEngine, PublisherEngine
from patterns.io.links import SocketKind
from patterns.io.waiting import Steps, Wait
from patterns.roles.arguments import check_count, check_limits
from patterns.roles.role import (
    LINGER_MS,
    D,
    MakeDriver,
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
from patterns.wire.limits import INTEGER_MAX
from patterns.wire.words import counted

_log = logging.getLogger("zbroker.publisher")
_GREETING_S = 2.0  # for a first answer of a broker, when we close; one that is up greets within milliseconds
_LANES_REMEMBERED = 65_536  # topics whose lane is found without a check; then the table starts over


class PublisherRole(Role[D]):
    """See patterns.sync.Publisher."""

    def __init__(
        self, make: MakeDriver[D], address: str | None, *, codec: str, timeout_s: float, security: object
    ) -> None:
        refuse_security(security)
        addresses = resolve(address)
        check_limits(timeout_s=timeout_s)
        self._timeout_s = timeout_s
        self._where = ", ".join(map(str, addresses))
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
        self._driver = make(
            self._engine,
            kind,
            self._take,
            binds=binding,
            before_turn=self._drain,
            in_background=self._wants_keeper,
            linger_ms=linger_ms,
        )
        self._start()

    def _wants_keeper(self) -> bool:
        """On an XPUB of our own subscribers arrive at any time; behind a broker, until all has left."""
        engine = self._engine
        if engine.closed:
            return False
        return isinstance(engine, PeerPublisherEngine) or not engine.is_ready or engine.unsent > 0

    def _take(self, events: list[Any]) -> None:
        """The audience is read from the engine."""

    def _drain(self, now: int) -> None:
        """Make batches of what was published, as long as the broker has room for more."""
        engine, lanes = self._engine, self._lanes
        if engine.room:
            batches = lanes.drain_all()
            if batches:
                engine.publish(batches, now)
        lanes.admit(engine.room)

    @property
    def address(self) -> str:
        """The address that subscribers connect to; a port 0 is filled in."""
        return self._driver.bound

    def _find_lane(self, topic: str) -> Lane:
        self._driver.check()
        lane = self._lanes.lane(topic)
        if len(self._lane_of) >= _LANES_REMEMBERED:
            self._lane_of.clear()
        self._lane_of[topic] = lane
        return lane

    def _make_room(self, lane: Lane) -> Steps[None]:
        """A batch is full: send it from here; wait first if the broker is slow. What this raises has taken no message."""
        driver = self._driver
        driver.check()
        if not self._engine.room and not (yield Wait(self._has_room, deadline_of(self._timeout_s))):
            raise self._overloaded()
        driver.check()
        if lane.items:
            driver.burst()
        if self._lanes.errors:
            raise self._lanes.errors.pop(0)

    def _has_room(self) -> bool:
        return self._engine.room or self._driver.is_closed or self._engine.error is not None

    def _overloaded(self) -> Exception:
        if not self._engine.is_ready:
            return self._engine.unavailable()
        held = f"the broker has not taken {self._engine.unsent} bytes that were published before within {self._timeout_s} s"
        return Overloaded(f"{held}; this message was not taken: publish it again later, or slower")

    def _flush(self, timeout_s: float) -> Steps[None]:
        self._driver.check()
        if not (yield Wait(self._has_left, deadline_of(timeout_s), True)):
            self._driver.check()
            if not self._engine.is_ready:
                raise self._engine.unavailable()
            raise TimedOut(f"{self._engine.unsent} bytes have not left within {timeout_s} s")
        raise_error(self._engine)
        if self._lanes.errors:
            raise self._lanes.errors.pop(0)

    def _has_left(self) -> bool:
        engine = self._engine
        return engine.error is not None or (engine.is_ready and engine.is_drained)

    @property
    def cuts(self) -> dict[str, int]:
        """Connections to the bound address that were cut since they flooded it, by reason: `guard.cuts` of SPEC.md 10.1.

        Linux and tcp:// alone; empty through a broker, which guards itself. A warning in the log tells of them, every 10 s at most.
        """
        return dict(self._driver.cuts)

    @property
    def batches(self) -> int:
        """How many batches have been made of what was published; says how well messages travel together."""
        return self._lanes.batches

    @property
    def subscribers(self) -> int:
        """How many subscribers are known to be there; plain SUB sockets are not counted."""
        return self._engine.audience

    def _wait_for_subscribers(self, count: int, timeout_s: float) -> Steps[None]:
        self._driver.check()
        check_count("count", count, INTEGER_MAX, "subscribers", least=0)
        engine = self._engine
        if not (
            yield Wait(lambda: engine.audience >= count or engine.error is not None, deadline_of(timeout_s), True)
        ):  # fmt: skip
            self._driver.check()
            if not engine.is_ready:
                raise engine.unavailable()
            raise TimedOut(f"{engine.audience} of {count} subscribers are there after {timeout_s} s")
        raise_error(engine)

    def _last(self, timeout_s: float) -> Steps[None]:
        """Wait until all has left; for a broker that nobody has ever heard of, a moment only."""
        engine, deadline = self._engine, deadline_of(timeout_s)
        if not self._is_done() and not engine.was_ready:
            yield Wait(lambda: engine.was_ready or self._is_done(), deadline_of(min(timeout_s, _GREETING_S)))
        if not self._is_done() and engine.was_ready:
            yield Wait(self._is_done, deadline)
        if self._lanes.errors:
            left_out = counted(len(self._lanes.errors), "published message")
            _log.warning("%s left out; the first: %s", left_out, self._lanes.errors[0])
        count, topic = engine.held()
        if count:
            _log.warning(
                "closed while %s, the first on topic %r, had not left for %s: lost%s",
                counted(count, "published message"),
                topic,
                self._where,
                "" if engine.is_ready else f": {engine.unavailable()}",
            )

    def _is_done(self) -> bool:
        """Whether nothing is held that could still leave."""
        engine = self._engine
        return engine.error is not None or engine.is_drained
