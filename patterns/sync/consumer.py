"""The Consumer of the sync shell."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, Final

import msgspec

from patterns.core.consume import ConsumerEngine, Delivered, LostOffsets, SettledEvent
from patterns.core.message import Bodies
from patterns.io.clock import clock
from patterns.io.driver import Driver
from patterns.io.links import SocketKind
from patterns.roles.role import codec_of, deadline_of, jitter, new_nonce, raise_error, refuse_security, resolve
from patterns.sync.role import SyncRole
from patterns.wire.codec import items_of
from patterns.wire.errors import BadArgument, BadBody, NotInThisDeployment, StaleLease, TimedOut, ZbrokerError
from patterns.wire.messages import Codec
from patterns.wire.names import check_name

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_CONFIRM_TIMEOUT_S: Final = 10.0
_PROCESSING_MAX_S: Final = 3_600.0


class Delivery:
    """One message that a group has lent to this consumer, or that it reads.

    Attributes:
        offset: its place in the stream.
        attempt: 1 the first time.
        key, headers: as sent.
        token: rises with each lease of a message; a fence for side effects.
    """

    __slots__ = ("_at", "_batch", "_body", "_consumer", "offset")

    def __init__(self, consumer: Consumer, batch: Batch, at: int, offset: int, body: Any) -> None:
        self._consumer = consumer
        self._batch = batch
        self._at = at
        self._body = body
        self.offset = offset

    def __repr__(self) -> str:
        return f"Delivery(offset={self.offset}, attempt={self.attempt}, body={self._body!r})"

    @property
    def body(self) -> Any:
        """Decoded, and validated if the Consumer has a `type`. Raises BadBody, ValidationFailed."""
        if isinstance(self._body, ZbrokerError):
            raise self._body
        return self._body

    @property
    def raw(self) -> bytes:
        """The body as it is encoded."""
        return self._batch._raw(self._at)

    @property
    def attempt(self) -> int:
        return self._batch.attempt

    @property
    def key(self) -> str | None:
        keys = self._batch._delivered.columns.keys
        return None if isinstance(keys, msgspec.UnsetType) else keys[self._at]

    @property
    def headers(self) -> dict[str, str] | None:
        headers = self._batch._delivered.columns.headers
        return None if isinstance(headers, msgspec.UnsetType) else headers[self._at]

    @property
    def topic(self) -> str | None:
        return self._batch._delivered.topic

    @property
    def published_at(self) -> datetime:
        """When the broker took it: aware, UTC, to the millisecond."""
        return _EPOCH + timedelta(milliseconds=self._batch._delivered.published_at)

    @property
    def token(self) -> int:
        return self._batch._delivered.lease

    def ack(self, confirm: bool = False) -> None:
        """It is done; it never comes again to this group.

        Args:
            confirm: wait until that is on disk.

        Raises:
            StaleLease: with confirm, when the message was not ours any more.
        """
        if confirm:
            self._consumer._settle_surely(self.token, self.offset)
        else:
            self._consumer._settle(self.token, self.offset, self.offset, "ack")

    def nack(self, delay_s: float = 0.0) -> None:
        """Not done; it comes again, to whoever is free, after a while."""
        self._consumer._settle(self.token, self.offset, self.offset, "nack", delay_ms=_delay_ms(delay_s))

    def reject(self, reason: str) -> None:
        """It can never be done; it does not come again."""
        self._consumer._settle(self.token, self.offset, self.offset, "reject", reason=reason)

    def extend(self, seconds: float) -> None:
        """It takes longer: keep the lease for so many seconds from now."""
        self._consumer._settle(self.token, self.offset, self.offset, "extend", delay_ms=_delay_ms(seconds))


class Batch:
    """Messages that were stored together, or a part of them; the fast way to consume.

    Attributes:
        attempt: of all of them.
    """

    __slots__ = ("_bodies", "_consumer", "_delivered", "_items", "attempt")

    def __init__(self, consumer: Consumer, delivered: Delivered) -> None:
        self._consumer = consumer
        self._delivered = delivered
        self._bodies: list[Any] | None = None
        self._items: list[Any] | None = None
        self.attempt = delivered.attempt

    def __len__(self) -> int:
        return self._delivered.count

    @property
    def bodies(self) -> list[Any]:
        """All bodies, decoded; in the place of one that cannot be had stands its error. Raises BadBody."""
        if self._bodies is None:
            d = self._delivered
            self._bodies = self._consumer._decode(d.codec, d.payload, d.count, d.sizes)
        return self._bodies

    @property
    def offsets(self) -> range | list[int]:
        d = self._delivered
        if d.offsets is None:
            return range(d.offset, d.offset + d.count)
        return [d.offset + delta for delta in d.offsets]

    @property
    def keys(self) -> list[str | None]:
        keys = self._delivered.columns.keys
        return [None] * len(self) if isinstance(keys, msgspec.UnsetType) else keys

    def ack(self, upto: int | None = None) -> None:
        """All are done, or the first `upto` of them."""
        self._settle(range(len(self) if upto is None else upto), "ack")

    def nack(self, indexes: Iterable[int] | None = None, delay_s: float = 0.0) -> None:
        """Not done: all, or those at these indexes."""
        self._settle(range(len(self)) if indexes is None else indexes, "nack", _delay_ms(delay_s))

    def _settle(self, indexes: Iterable[int], action: str, delay_ms: int = 0) -> None:
        offsets, lease = self.offsets, self._delivered.lease
        if isinstance(indexes, range) and indexes.step == 1 and isinstance(offsets, range):
            if indexes:
                first, last = offsets[indexes[0]], offsets[indexes[-1]]
                self._consumer._settle(lease, first, last, action, delay_ms=delay_ms)
            return
        for index in indexes:
            self._consumer._settle(lease, offsets[index], offsets[index], action, delay_ms=delay_ms)

    def _raw(self, at: int) -> bytes:
        if self._items is None:
            d = self._delivered
            self._items = items_of(d.codec, d.payload, d.count, d.sizes)
        return bytes(self._items[at])

    def _deliveries(self) -> Iterator[Delivery]:
        consumer = self._consumer
        for at, (offset, body) in enumerate(zip(self.offsets, self.bodies, strict=True)):
            yield Delivery(consumer, self, at, offset, body)


class Consumer(SyncRole):
    """Takes messages from a stream: as a member of a group, each message for one member, or alone, leaving no trace.

    Args:
        address: `zb://` of brokers. None: ZBROKER_URL.
        stream: made by first use.
        group: made by first use; None reads without a group, and nothing is settled.
        start: where a new group, or a reader, begins: "first", "new", or an offset.
        credit: the most messages held ahead.
        codec: what it prefers; bodies are decoded from whatever they come in.
        type: what bodies are validated as; a message that is not of it has a `body` that raises.
        idle_timeout_s: iteration ends when nothing came for so long.
        processing_max_s: how long a handler may compute before its messages go to another member.
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
        processing_max_s: float = _PROCESSING_MAX_S,
        security: object = None,
    ) -> None:
        refuse_security(security)
        addresses = resolve(address)
        if not addresses[0].brokered:
            raise NotInThisDeployment("a Consumer needs a broker with a journal in this version: use a zb:// address")
        check_name(stream, "stream")
        if group is not None:
            check_name(group, "group")
        if not 1 <= credit <= 1_000_000:
            raise BadArgument(f"credit={credit!r}: 1 to 1,000,000 messages")
        self.lost_offsets: list[tuple[int, int]] = []  # what damage on the broker's disk took, as ranges
        self._bodies = Bodies(type)
        self._idle_timeout_s = idle_timeout_s
        self._engine = ConsumerEngine(
            addresses,
            stream,
            group or "",
            _start(start),
            new_nonce(),
            codec_of(codec),
            jitter,
            credit=credit,
            processing_max_us=int(processing_max_s * 1e6),
        )
        self._delivered: deque[Delivered] = deque()
        self._settled: list[tuple[int, int, int, str, int, str]] = []
        self._answers: dict[int, SettledEvent] = {}
        self._messages: Iterator[Delivery] | None = None
        self._thread = 0
        self._driver = Driver(
            self._engine,
            SocketKind.DEALER,
            self._take,
            before_turn=self._drain,
            in_background=self._wants_keeper,
        )
        self._driver.start()

    def _wants_keeper(self) -> bool:
        return not self._engine.closed and self._engine.error is None and not self._engine.joined

    def _take(self, events: list[Any]) -> None:
        for event in events:
            if isinstance(event, Delivered):
                self._delivered.append(event)
            elif isinstance(event, SettledEvent):
                self._answers[event.id] = event
            elif isinstance(event, LostOffsets):
                self.lost_offsets.append((event.first, event.last))

    def _drain(self, now: int) -> None:
        """Tell what was settled since the last turn."""
        end = len(self._settled)
        if end:
            settled = self._settled[:end]
            del self._settled[:end]
            for lease, first, last, action, delay_ms, reason in settled:
                if lease:  # a reader without a group settles nothing
                    self._engine.settle(lease, first, last, action, delay_ms=delay_ms, reason=reason)
        if self._engine.has_news:
            self._engine.tell(now)

    @property
    def stale(self) -> int:
        """Settles that came too late: the messages were somebody else's by then."""
        return self._engine.stale

    # -- taking --------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Delivery]:
        """Messages, until close() or idle_timeout_s without one. A second loop goes on where the first stopped."""
        if self._messages is None:
            self._messages = chain.from_iterable(batch._deliveries() for batch in self._arriving("slices"))
        return self._messages

    def receive(self, timeout_s: float | None = None) -> Delivery | None:
        """The next message; None when none came in time, or after close()."""
        before, self._idle_timeout_s = self._idle_timeout_s, timeout_s
        try:
            return next(iter(self), None)
        finally:
            self._idle_timeout_s = before

    def batches(self) -> Iterator[Batch]:
        """Batches, as they were stored where that is possible; ends as iteration does."""
        return self._arriving("batches")

    def _arriving(self, mode: str) -> Iterator[Batch]:
        driver, delivered, engine = self._driver, self._delivered, self._engine
        self._thread = threading.get_ident()
        if not driver.is_over():
            driver.run(lambda now: engine.use(mode, now))
        try:
            while True:
                if not delivered:
                    if driver.is_over():
                        return
                    if not driver.wait(self._has_news, deadline_of(self._idle_timeout_s)):
                        return
                    continue
                event = delivered.popleft()
                with driver.lock:
                    engine.taken(event.count, event.size, clock())
                if mode == "slices" or not delivered:
                    driver.run()
                try:
                    batch = Batch(self, event)
                    if mode == "slices":
                        batch.bodies  # noqa: B018  what cannot be decoded is refused here, not in the caller's loop
                except BadBody:
                    engine.counters["malformed"] += 1
                    continue
                yield batch
        finally:
            self._messages = None

    def _has_news(self) -> bool:
        return bool(self._delivered) or self._driver.is_closed or self._engine.closed or self._engine.error is not None

    def ready(self, timeout_s: float = 5.0) -> None:
        """Return when the stream is joined. Raises Unavailable, and what the broker refuses the join for."""
        self._driver.check()
        engine = self._engine
        if not self._driver.wait(lambda: engine.joined or engine.error is not None, deadline_of(timeout_s)):
            raise engine.unavailable()
        raise_error(engine)

    def _decode(self, codec: Codec, payload: bytes, count: int, sizes: list[int] | None) -> list[Any]:
        return self._bodies.decode(codec, payload, count, sizes)

    # -- settling ------------------------------------------------------------------------------------------------

    def _settle(self, lease: int, first: int, last: int, action: str, *, delay_ms: int = 0, reason: str = "") -> None:
        """Note it; the next turn tells. The iterating thread makes that turn itself when it asks for more."""
        self._settled.append((lease, first, last, action, delay_ms, reason))
        if threading.get_ident() != self._thread and not self._driver.kicked:
            self._driver.check()
            self._driver.kick()

    def _settle_surely(self, lease: int, offset: int) -> None:
        driver, engine, answers = self._driver, self._engine, self._answers
        driver.check()
        with driver.lock:
            self._drain(clock())
            number = engine.settle_surely(lease, offset, offset, clock())
        if not driver.wait(lambda: number in answers or driver.is_closed, deadline_of(_CONFIRM_TIMEOUT_S)):
            raise TimedOut(f"the broker has not confirmed the ack of offset {offset} within {_CONFIRM_TIMEOUT_S} s")
        driver.check()
        answer = answers.pop(number)
        if answer.error is not None or answer.stale:
            raise answer.error or StaleLease(f"offset {offset} was not ours any more: somebody else has it or had it")


def _start(start: str | int | datetime) -> str | int:
    if isinstance(start, datetime):
        raise NotInThisDeployment("start= at a time is not built in this version; use 'first', 'new' or an offset")
    if start not in ("first", "new") and not (isinstance(start, int) and start >= 0):
        raise BadArgument(f"start={start!r}: 'first', 'new' or an offset")
    return start


def _delay_ms(seconds: float) -> int:
    if not 0 <= seconds <= 1e9:
        raise BadArgument(f"{seconds!r} seconds: 0 to 1,000,000,000")
    return int(seconds * 1_000)
