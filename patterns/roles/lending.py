"""What a Consumer gives out: deliveries and batches, and how they are settled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from patterns.core.consume import Delivered
from patterns.io.waiting import Steps
from patterns.roles.arguments import check_seconds, check_text, check_upto, delay_ms_of, indexes_of
from patterns.wire.codec import items_of
from patterns.wire.errors import StaleLease, ZbrokerError

if TYPE_CHECKING:
    from patterns.roles.consumer import ConsumerRole

_T = TypeVar("_T", bound="DeliveryRole")
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class DeliveryRole:
    """One message that a group has lent to this consumer, or that it reads.

    Attributes:
        offset: its place in the stream.
        attempt: 1 the first time.
        key, headers: as sent.
        token: rises with each lease of a message; a fence for side effects.
    """

    __slots__ = ("_at", "_batch", "_body", "_consumer", "_settled", "offset")

    def __init__(self, consumer: ConsumerRole[Any], batch: Batch, at: int, offset: int, body: Any) -> None:
        self._consumer = consumer
        self._batch = batch
        self._at = at
        self._body = body
        self._settled = ""  # what became of it
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
    def codec(self) -> str:
        """How `raw` is encoded: "msgpack", "json" or "raw"."""
        return self._batch._delivered.codec.value

    @property
    def message_id(self) -> str | None:
        """As sent."""
        ids = self._batch._delivered.columns.ids
        return None if isinstance(ids, msgspec.UnsetType) else ids[self._at]

    @property
    def attempt(self) -> int:
        """1 the first time, one more each time that it was not done."""
        return self._batch.attempt

    @property
    def key(self) -> str | None:
        """As sent."""
        keys = self._batch._delivered.columns.keys
        return None if isinstance(keys, msgspec.UnsetType) else keys[self._at]

    @property
    def headers(self) -> dict[str, str] | None:
        """As sent; None without any."""
        headers = self._batch._delivered.columns.headers
        return None if isinstance(headers, msgspec.UnsetType) else headers[self._at]

    @property
    def topic(self) -> str | None:
        """As sent, or published where the stream captures it; None without one."""
        delivered = self._batch._delivered
        columns = delivered.columns
        if isinstance(columns.topic, msgspec.UnsetType) or isinstance(columns.topics, msgspec.UnsetType):
            return delivered.topic
        return columns.topics[columns.topic[self._at]]

    @property
    def published_at(self) -> datetime:
        """When the broker took it: aware, UTC, to the millisecond."""
        return self._batch.published_at

    @property
    def token(self) -> int:
        """Rises with each lease of a message; a fence for side effects. 0 without a group."""
        return self._batch._delivered.token

    def _release(self) -> None:
        """Nobody was given it: it is told with what was settled."""
        self._consumer._release(self._batch._delivered.lease, self.offset, self.offset)

    def _check(self) -> None:
        if self._settled:
            raise _settled_already(self._consumer._engine.place(self.offset), self._settled)

    def _settle(self, action: str, settled: str, delay_ms: int = 0, reason: str = "") -> None:
        if self._settled:
            self._check()
        lease = self._batch._delivered.lease
        self._consumer._settle(lease, self.offset, self.offset, action, delay_ms=delay_ms, reason=reason)
        self._settled = settled

    def _settle_surely(self, action: str, settled: str, reason: str = "") -> Steps[None]:
        self._check()
        yield from self._consumer._settle_surely(self._batch._delivered.lease, self.offset, action, reason)
        self._settled = settled  # not before: who was not answered may ask again

    def _ack(self) -> None:
        self._settle("ack", "acked")

    def _ack_surely(self) -> Steps[None]:
        return self._settle_surely("ack", "acked")

    def _reject(self, reason: str) -> None:
        self._settle("reject", "rejected", reason=check_text("reason", reason))

    def _reject_surely(self, reason: str) -> Steps[None]:
        return self._settle_surely("reject", "rejected", check_text("reason", reason))

    def nack(self, delay_s: float = 0.0) -> None:
        """Not done; it comes again, to whoever is free, after a while. Raises as ack() does."""
        self._settle("nack", "nacked", delay_ms_of(delay_s))

    def extend(self, seconds: float) -> None:
        """It takes longer: keep the lease for so many seconds from now. Raises as ack() does."""
        self._check()
        lease = self._batch._delivered.lease
        self._consumer._settle(
            lease, self.offset, self.offset, "extend", delay_ms=int(check_seconds("seconds", seconds) * 1_000)
        )


class Batch:
    """Messages that were stored together, or a part of them; the fast way to consume.

    Attributes:
        attempt: of all of them.
    """

    __slots__ = ("_bodies", "_consumer", "_delivered", "_is_over", "_items", "_settled", "attempt")

    def __init__(self, consumer: ConsumerRole[Any], delivered: Delivered) -> None:
        self._consumer = consumer
        self._delivered = delivered
        self._bodies: list[Any] | None = None
        self._items: list[Any] | None = None
        self._is_over = False  # whether its rest was settled; a rest of none, too
        self._settled: bytearray | None = None  # a byte for each message, 1 when it is; None: no message is
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
        """The place of each message in the stream."""
        d = self._delivered
        if d.offsets is None:
            return range(d.offset, d.offset + d.count)
        return [d.offset + delta for delta in d.offsets]

    @property
    def published_at(self) -> datetime:
        """When the broker took them: aware, UTC, to the millisecond."""
        return EPOCH + timedelta(milliseconds=self._delivered.published_at)

    @property
    def keys(self) -> list[str | None]:
        """The key of each message, None where it has none."""
        keys = self._delivered.columns.keys
        return [None] * len(self) if isinstance(keys, msgspec.UnsetType) else keys

    def ack(self, upto: int | None = None) -> None:
        """All that are not settled yet are done, or those among the first `upto`, which may grow from call to call.

        Raises:
            StaleLease: without `upto`, the second time.
            LocalProtocolError: the Consumer has no group, so nothing is lent to it.
        """
        if upto is not None:
            check_upto(upto, len(self))
        self._settle_rest("ack", upto)

    def nack(self, indexes: Iterable[int] | None = None, delay_s: float = 0.0) -> None:
        """Not done: all that are not settled yet, or those at these indexes.

        Raises:
            StaleLease: one of these is settled already, or the rest was.
            LocalProtocolError: the Consumer has no group.
            BadArgument: no index of this batch; then none is settled.
        """
        delay_ms = delay_ms_of(delay_s)
        if indexes is None:
            self._settle_rest("nack", None, delay_ms)
        else:
            self._settle_these(indexes_of(indexes, len(self)), delay_ms)

    def _settle_rest(self, action: str, upto: int | None, delay_ms: int = 0) -> None:
        end = len(self) if upto is None else upto
        if upto is None and self._is_over:
            raise _settled_already(f"this batch of {end} messages", "settled")
        done = self._settled
        if done is None:
            done, runs = bytearray(len(self)), [range(end)]
        else:
            runs = _runs_of_0(done, end)
        for run in runs:
            self._settle(run, action, delay_ms)
        done[:end] = b"\x01" * end
        self._settled = done
        self._is_over = self._is_over or upto is None

    def _settle_these(self, indexes: list[int], delay_ms: int) -> None:
        done = bytearray(len(self)) if self._settled is None else bytearray(self._settled)
        for index in indexes:
            if done[index]:
                raise _settled_already(self._consumer._engine.place(self.offsets[index]), "settled")
            done[index] = 1
        self._settle(indexes, "nack", delay_ms)
        self._settled = done

    def _release(self) -> None:
        """Nobody was given it: it is told with what was settled."""
        offsets, lease = self.offsets, self._delivered.lease
        whole = isinstance(offsets, range)
        for first, last in [(offsets[0], offsets[-1])] if whole else zip(offsets, offsets, strict=True):
            self._consumer._release(lease, first, last)

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


def deliveries(consumer: ConsumerRole[Any], batch: Batch, kind: type[_T]) -> Iterator[_T]:
    """A batch's messages, one by one. No generator, which two threads must not enter; half the time, too."""
    return map(kind, repeat(consumer), repeat(batch), range(len(batch)), batch.offsets, batch.bodies)


def _settled_already(what: str, how: str) -> StaleLease:
    return StaleLease(f"{what} is {how} already, so it is not ours any more; ack, nack or reject a message once")


def _runs_of_0(done: bytearray, end: int) -> list[range]:
    """Places below `end` with a 0, as ranges."""
    runs: list[range] = []
    begin = done.find(0, 0, end)
    while begin >= 0:
        stop = done.find(1, begin, end)
        stop = end if stop < 0 else stop
        runs.append(range(begin, stop))
        begin = done.find(0, stop, end)
    return runs
