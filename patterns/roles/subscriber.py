"""The Subscriber: receives messages by topic."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from patterns.core.message import Bodies, Message, messages_of
from patterns.core.subscribe import PeerSubscriberEngine, Received, SubscriberEngine
from patterns.io.links import SocketKind
from patterns.io.waiting import Steps, Wait
from patterns.roles.arguments import check_limits
from patterns.roles.role import (
    D,
    MakeDriver,
    Role,
    binds,
    codec_of,
    deadline_of,
    jitter,
    new_nonce,
    raise_error,
    raise_if_never_there,
    refuse_security,
    resolve,
)
from patterns.wire.errors import BadArgument, BadBody, BadName, NotInThisDeployment
from patterns.wire.messages import Overflow
from patterns.wire.names import check_meant


def _overflow_of(overflow: str) -> Overflow:
    """Raises BadArgument."""
    try:
        return Overflow(overflow)
    except ValueError as error:
        raise BadArgument(f"overflow={overflow!r}: one of {', '.join(Overflow)}") from error


class SubscriberRole(Role[D]):
    """See patterns.sync.Subscriber."""

    def __init__(
        self,
        make: MakeDriver[D],
        address: str | None,
        patterns: Sequence[str],
        *,
        codec: str,
        type: Any,
        idle_timeout_s: float | None,
        overflow: str,
        security: object,
    ) -> None:
        refuse_security(security)
        addresses = resolve(address)
        if not patterns:
            raise BadArgument("a Subscriber needs at least one pattern; '>' is everything")
        for pattern in patterns:
            if isinstance(pattern, list | tuple | set | frozenset):
                raise BadName(
                    f"a pattern of type {pattern.__class__.__name__}: patterns are arguments of their own, 'a.>', 'b.>'"
                )
            check_meant(pattern)
        policy = _overflow_of(overflow)
        check_limits(idle_timeout_s=idle_timeout_s)
        self._engine: SubscriberEngine | PeerSubscriberEngine
        if addresses[0].brokered:
            self._engine = SubscriberEngine(addresses, patterns, new_nonce(), codec_of(codec), jitter, policy)
            kind, binding = SocketKind.DEALER, False
        else:
            if policy is not Overflow.DROP_NEWEST:
                raise NotInThisDeployment(
                    f"overflow={policy.value!r} needs a broker: peer to peer libzmq drops the newest at its high-water mark;"
                    " use a zb:// address, or leave overflow out"
                )
            self._engine = PeerSubscriberEngine(addresses, patterns, new_nonce())
            kind, binding = SocketKind.SUB, binds(addresses[0], default=False)
        self._bodies = Bodies(type)
        self._idle_timeout_s = idle_timeout_s
        self._batches: deque[Received] = deque()
        self._driver = make(
            self._engine,
            kind,
            self._take,
            binds=binding,
            before_turn=self._grant,
            in_background=self._wants_keeper,
        )
        self._start()

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
        """Messages known to be missed: from broker to here exactly those that it would have been handed, from publishers on at
        least so many of the channels that it listens to, whichever topics they had."""
        return self._engine.loss.lost

    @property
    def interruptions(self) -> int:
        """Breaks of unknown size."""
        return self._engine.loss.interruptions

    @property
    def unreadable(self) -> int:
        """Batches, and what else came, that were dropped because nobody can read them: no ZB1, or not the bodies that they say."""
        return self._engine.counters["malformed"]

    def _ready(self, timeout_s: float) -> Steps[None]:
        self._driver.check()
        engine = self._engine
        if not (yield Wait(lambda: engine.is_listening or engine.error is not None, deadline_of(timeout_s), True)):
            self._driver.check()
            raise engine.unavailable()
        raise_error(engine)

    def _next_messages(self, timeout_s: float | None) -> Steps[Iterable[Message] | None]:
        """The next batch's messages; None when none came in time, or after close()."""
        driver, batches = self._driver, self._batches
        if driver.forked:
            driver.check()
        while True:
            while batches:
                try:
                    return messages_of(batches.popleft(), self._bodies)
                except BadBody:
                    self._engine.counters["malformed"] += 1
            if driver.is_over():
                return None
            if not batches and not (yield Wait(self._has_news, deadline_of(timeout_s))):
                raise_if_never_there(self._engine)
                return None

    def _has_news(self) -> bool:
        return bool(self._batches) or self._driver.is_closed or self._engine.closed or self._engine.error is not None
