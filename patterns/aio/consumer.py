"""The Consumer of the asyncio shell."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Generator, Iterator
from datetime import datetime
from typing import Any

from patterns.aio.driver import AioDriver
from patterns.aio.role import AioRole, Arrivals
from patterns.roles.consumer import ConsumerRole
from patterns.roles.lending import Batch, DeliveryRole, deliveries

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

    def ack(self, confirm: bool = False) -> Awaitable[None]:
        """It is done; it never comes again to this group.

        Args:
            confirm: wait until that is on disk: await the result. Without, the ack is on its way already, and awaiting
                returns at once.

        Raises:
            StaleLease: it is settled already, or was given back after processing_max_s; with confirm, also when the
                message was not ours any more.
            LocalProtocolError: the Consumer has no group, so nothing is lent to it.
        """
        if confirm:
            return self._consumer._driver.drive(self._ack_surely())
        self._ack()
        return _NOTED

    def reject(self, reason: str = "", confirm: bool = False) -> Awaitable[None]:
        """It can never be done; it does not come again: a dead letter, where its group has a stream for them.

        Args:
            reason: for people; it stands in the dead letter.
            confirm: wait until that is on disk, the dead letter with it: await the result, as of ack().

        Raises:
            As ack() does; TimedOut, with confirm, also when its stream has had no room for so long: it is tried again.
        """
        if confirm:
            return self._consumer._driver.drive(self._reject_surely(reason))
        self._reject(reason)
        return _NOTED


class _Noted:
    """Awaiting it returns at once."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


_NOTED = _Noted()


class Consumer(ConsumerRole[AioDriver], AioRole):
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
            One that blocks the event loop stops this clock too: a member that is silent loses them after 8 s.
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
        self._mode = ""  # what the iteration that is under way takes
        self._slices: Arrivals[Delivery] = Arrivals(self._more_slices, idle_timeout_s)
        self._batches: Arrivals[Batch] = Arrivals(self._more_batches, idle_timeout_s)
        super().__init__(
            AioDriver,
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

    def __aiter__(self) -> AsyncIterator[Delivery]:
        """Messages, until close() or idle_timeout_s without one. A second loop goes on where the first stopped."""
        return self._slices

    async def receive(self, timeout_s: float | None = None) -> Delivery | None:
        """The next message; None when none came in time, or after close()."""
        return await self._slices.receive(timeout_s)

    def batches(self) -> AsyncIterator[Batch]:
        """Batches, as they were stored where that is possible; ends as iteration does."""
        return self._batches

    def _release_waiting(self) -> None:
        for delivery in self._slices.waiting():
            delivery._release()
        for batch in self._batches.waiting():
            batch._release()

    async def _more_slices(self, timeout_s: float | None) -> Iterator[Delivery] | None:
        batch = await self._more("slices", timeout_s)
        return None if batch is None else deliveries(self, batch, Delivery)

    async def _more_batches(self, timeout_s: float | None) -> tuple[Batch] | None:
        batch = await self._more("batches", timeout_s)
        return None if batch is None else (batch,)

    async def _more(self, mode: str, timeout_s: float | None) -> Batch | None:
        if mode != self._mode:
            self._mode = mode
            self._begin(mode)
        return await self._driver.drive(self._next_batch(mode, timeout_s))

    async def ready(self, timeout_s: float = 5.0) -> None:
        """Return when the stream is joined. Raises Unavailable, and what the broker refuses the join for."""
        await self._driver.drive(self._ready(timeout_s))
