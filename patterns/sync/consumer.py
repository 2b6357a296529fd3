"""The Consumer of the sync shell."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import chain
from typing import Any

from patterns.io.driver import Driver
from patterns.roles.arguments import check_timeout
from patterns.roles.consumer import ConsumerRole
from patterns.roles.lending import Batch, DeliveryRole, deliveries
from patterns.sync.arriving import Arriving
from patterns.sync.role import SyncRole

__all__ = ["Batch", "Consumer", "Delivery"]


class Delivery(DeliveryRole):
    """One message that a group has lent to this consumer, or that it reads.

    Attributes:
        offset: its place in the stream.
        attempt: 1 the first time.
        key, headers: as sent.
        token: rises with each lease of a message; a fence for side effects.
    """

    __slots__ = ()

    _consumer: Consumer

    def ack(self, confirm: bool = False) -> None:
        """It is done; it never comes again to this group.

        Args:
            confirm: wait until that is on disk.

        Raises:
            StaleLease: it is settled already, or was given back after processing_max_s; with confirm, also when the
                message was not ours any more.
            LocalProtocolError: the Consumer has no group, so nothing is lent to it.
        """
        if confirm:
            self._consumer._driver.drive(self._ack_surely())
        else:
            self._ack()

    def reject(self, reason: str = "", confirm: bool = False) -> None:
        """It can never be done; it does not come again: a dead letter, where its group has a stream for them.

        Args:
            reason: for people; it stands in the dead letter.
            confirm: wait until that is on disk, the dead letter with it.

        Raises:
            As ack() does; TimedOut, with confirm, also when its stream has had no room for so long: it is tried again.
        """
        if confirm:
            self._consumer._driver.drive(self._reject_surely(reason))
        else:
            self._reject(reason)


class Consumer(ConsumerRole[Driver], SyncRole):
    """Takes messages from a stream: as a member of a group, each message for one member, or alone, leaving no trace.

    Leaving the `with` gives back what is not settled, without counting an attempt. Left by an Exception, an attempt counts
    for what iteration has given and is not settled: so a message that no handler can do does not come as the first for ever.

    Args:
        address: `zb://` of brokers. None: ZBROKER_URL.
        stream: made by first use.
        group: made by first use; None reads without a group, and nothing is settled.
        start: where a new group, or a reader, begins: "first", "new", an offset, or an aware datetime: with the first
            message that the broker took then or later.
        credit: the most messages held ahead. With 1, a member of a group gets the next one when that which it has is settled.
        codec: what it prefers; bodies are decoded from whatever they come in.
        type: what bodies are validated as; a message that is not of it has a `body` that raises.
        idle_timeout_s: iteration ends when nothing came for so long.
        processing_max_s: how long a handler may compute, 0.1 or more; None: as its group's configuration says, else an
            hour. When nothing was taken or settled for so long, what
            it holds goes to another member; an attempt counts for what iteration has given, and acking that raises.
        security: not built yet.

    Raises:
        BadAddress, BadName, BadArgument; NotInThisDeployment peer to peer.
    """

    def __init__(
        self,
        address: str | None,
        stream: str,
        *,
        group: str | None = None,
        start: str | int | datetime = "first",
        credit: int = 1_000,
        codec: str = "msgpack",
        type: Any = Any,
        idle_timeout_s: float | None = None,
        processing_max_s: float | None = None,
        security: object = None,
    ) -> None:
        self._messages: Iterator[Delivery] | None = None
        self._slice: Iterator[Delivery] = iter(())
        self._slices: Arriving[Iterable[Delivery]]
        super().__init__(
            Driver,
            address,
            stream,
            group=group,
            start=start,
            credit=credit,
            codec=codec,
            type=type,
            idle_timeout_s=idle_timeout_s,
            processing_max_s=processing_max_s,
            security=security,
        )

    def __iter__(self) -> Iterator[Delivery]:
        """Messages, until close() or idle_timeout_s without one. A second loop goes on where the first stopped."""
        if self._messages is None:
            self._thread = threading.get_ident()
            self._begin("slices")
            self._slices = Arriving("Consumer", self._take_slice, self._forget)
            self._messages = chain.from_iterable(self._slices)
        self._slices.check()
        return self._messages

    def _take_slice(self) -> Iterable[Delivery] | None:
        batch = self._take_batch("slices")
        if batch is None:
            return None
        self._slice = deliveries(self, batch, Delivery)
        return self._slice

    def _release_waiting(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept._release()
        for delivery in self._slice:
            delivery._release()

    def _take_batch(self, mode: str) -> Batch | None:
        return self._taken(lambda: self._next_batch(mode, self._idle_timeout_s))

    def _forget(self) -> None:
        self._messages = None

    def receive(self, timeout_s: float | None = None) -> Delivery | None:
        """The next message; None when none came in time, or after close()."""
        check_timeout(timeout_s)
        before, self._idle_timeout_s = self._idle_timeout_s, timeout_s
        try:
            return next(iter(self), None)
        finally:
            self._idle_timeout_s = before

    def batches(self) -> Iterator[Batch]:
        """Batches, as they were stored where that is possible; ends as iteration does."""
        self._thread = threading.get_ident()
        self._begin("batches")
        return Arriving("Consumer", lambda: self._take_batch("batches"), self._forget)

    def ready(self, timeout_s: float = 5.0) -> None:
        """Return when the stream is joined. Raises Unavailable, and what the broker refuses the join for."""
        self._driver.drive(self._ready(timeout_s))
