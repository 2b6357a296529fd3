"""The Producer of the asyncio shell."""

from __future__ import annotations

from collections.abc import AsyncIterable, Generator, Iterable
from typing import Any

from patterns.aio.driver import AioDriver
from patterns.aio.role import AioRole
from patterns.io.outbox import Outbox
from patterns.roles.arguments import delay_ms_of, topic_of
from patterns.roles.posting import PostedRole, Receipt, Receipts, SendManyError
from patterns.roles.producer import UNCONFIRMED_BYTES_MAX, ProducerRole, Sending
from patterns.wire.attributes import check_attributes

__all__ = ["Posted", "Producer", "Receipt", "Receipts", "SendManyError"]


class Posted(PostedRole, gc=False, eq=False):
    """A message on its way; see Producer.post()."""

    async def result(self, timeout_s: float | None = None) -> Receipt:
        """Wait for the receipt. Raises TimedOut, or what the message was refused for."""
        receipt: Receipt = await self._producer._driver.drive(self._result(timeout_s))
        return receipt

    def __await__(self) -> Generator[Any, None, Receipt]:
        return self.result().__await__()


class Producer(ProducerRole[AioDriver], AioRole):
    """Appends messages to a stream, each stored once and confirmed when it is on disk; tasks of one loop may share it.

    Args:
        address: `zb://` of brokers. None: ZBROKER_URL.
        stream: made by first use.
        codec: of the bodies.
        name: keeps the producer's identity over restarts of the program and shuts out its older self.
        timeout_s: how long send() waits for its confirm, and room() for room.
        unconfirmed_bytes_max: what may be under way; with a journal, to its disk.
        journal: of zbroker.store.open_journal(DIR), for this Producer alone, which closes it: what is sent is on that disk first, and
            is forwarded in order, once, when the broker is there, over restarts of both. send() and post() are done when it is on that disk.
        confirm: when a message counts as safe: `durable`, on the broker's disk; `written`, on its way to there, and lost if
            the machine stops; `received`, in the broker's memory, and lost if that stops.
        security: not built yet.

    Raises:
        BadAddress, BadName, BadArgument; NotInThisDeployment peer to peer.
        StorageFull, StorageFailed: of the journal.
    """

    def __init__(
        self,
        address: str | None,
        stream: str,
        *,
        codec: str = "msgpack",
        name: str = "",
        timeout_s: float = 10.0,
        unconfirmed_bytes_max: int = UNCONFIRMED_BYTES_MAX,
        journal: Outbox | None = None,
        confirm: str = "durable",
        security: object = None,
    ) -> None:
        super().__init__(
            AioDriver,
            address,
            stream,
            codec=codec,
            name=name,
            timeout_s=timeout_s,
            unconfirmed_bytes_max=unconfirmed_bytes_max,
            journal=journal,
            confirm=confirm,
            security=security,
        )

    async def send(
        self,
        body: Any,
        *,
        key: str | None = None,
        headers: dict[str, str] | None = None,
        topic: str | None = None,
        message_id: str | None = None,
        delay_s: float | None = None,
    ) -> Receipt:
        """Store one message; returns when it is on disk.

        Args:
            body: what the codec can express.
            key, headers: travel with it; str, and str to str.
            message_id: travels with it; what the stream remembers under the same id is not stored again, and the receipt says so.
            topic: travels with it; once it is on disk, it is delivered live to subscribers as well.
            delay_s: how long groups wait before they deliver it, from when the broker has it; at most 365 days. Readers
                without a group see it at once.

        Raises:
            TimedOut: no confirm in time; it may be stored nevertheless.
            StorageFull, StorageFailed, OutcomeUnknown, Fenced: see their texts.
            BadBody, BadArgument, BadName: the body, or what travels with it, cannot be written.
            TooLarge: a body above 1 MiB; key, headers and message_id above 64 KiB together.
        """
        return await self._driver.drive(self._send(body, key, headers, topic, message_id, delay_s))

    async def send_many(self, bodies: Iterable[Any] | AsyncIterable[Any]) -> Receipts:
        """Store many messages, pipelined; returns when all are on disk. Not atomic. An async generator may yield them.

        Raises:
            SendManyError: one was refused; `.receipts` of those before it, `.index` of the first without one.
            TimedOut, Unavailable: no progress for `timeout_s`.
            BadArgument: one body (str, bytes, a mapping) instead of an iterable of them.
        """
        if not isinstance(bodies, AsyncIterable):
            return await self._driver.drive(self._send_many(bodies))
        self._driver.check()
        sending = Sending()
        chunk = []
        async for body in bodies:
            chunk.append(body)
            if len(chunk) >= self._per_batch:
                await self._driver.drive(self._send_chunk(sending, chunk))
                chunk = []
        if chunk:
            await self._driver.drive(self._send_chunk(sending, chunk))
        return await self._driver.drive(self._sent(sending))

    def post(
        self,
        body: Any,
        *,
        key: str | None = None,
        headers: dict[str, str] | None = None,
        topic: str | None = None,
        message_id: str | None = None,
        delay_s: float | None = None,
    ) -> Posted:
        """Hand a message over and return at once. The body must not be changed afterwards.

        The arguments are those of send().

        Raises:
            BufferFull: no room, and the message was not taken; `await room()`, then post it again.
            BadArgument, TooLarge: of key, headers and message_id, as in send(); the body is refused in the Posted.
            Closed, Forked, Unavailable.
        """
        if topic is not None:
            topic_of(topic)
        if key is not None or headers is not None or message_id is not None:
            check_attributes(key, headers, message_id)
        if self._is_full:
            if not self._may_go_on():
                raise self._no_room()
            self._is_full = False
        delay_ms = 0 if delay_s is None else delay_ms_of(delay_s)
        posted = Posted(self, body, key, headers, message_id, topic, delay_ms)
        self._posted.append(posted)
        if len(self._posted) >= self._per_batch:
            self._post_now()
        elif not self._driver.kicked:
            self._driver.check()
            self._driver.kick()
        return posted

    async def room(self, timeout_s: float | None = None) -> None:
        """Return when there is room for another post(). None: within the Producer's `timeout_s`. Raises BufferFull."""
        await self._driver.drive(self._room(self._timeout_s if timeout_s is None else timeout_s))

    async def flush(self, timeout_s: float = 10.0) -> None:
        """Return when everything posted is confirmed or refused. Raises TimedOut, and what a refusal of the session was."""
        await self._driver.drive(self._flush(timeout_s))
