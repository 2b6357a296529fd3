"""What a Consumer gives out: deliveries and batches, and how they are settled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from patterns.core.consume import Delivered
from patterns.io.waiting import Steps
from patterns.wire.codec import items_of
from patterns.wire.errors import BadArgument, ZbrokerError

if TYPE_CHECKING:
    from patterns.roles.consumer import ConsumerRole

_T = TypeVar("_T", bound="DeliveryRole")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class DeliveryRole:
    """One message that a group has lent to this consumer, or that it reads.

    Attributes:
        offset: its place in the stream.
        attempt: 1 the first time.
        key, headers: as sent.
        token: rises with each lease of a message; a fence for side effects.
    """

    __slots__ = ("_at", "_batch", "_body", "_consumer", "offset")

    def __init__(self, consumer: ConsumerRole[Any], batch: Batch, at: int, offset: int, body: Any) -> None:
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

    def _release(self) -> None:
        self._consumer._settle(self.token, self.offset, self.offset, "release")

    def _ack(self) -> None:
        self._consumer._settle(self.token, self.offset, self.offset, "ack")

    def _ack_surely(self) -> Steps[None]:
        return self._consumer._settle_surely(self.token, self.offset)

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

    def __init__(self, consumer: ConsumerRole[Any], delivered: Delivered) -> None:
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
        if upto is not None and not 0 <= upto <= len(self):
            raise BadArgument(f"upto={upto!r}: this batch has {len(self)} messages")
        self._settle(range(len(self) if upto is None else upto), "ack")

    def nack(self, indexes: Iterable[int] | None = None, delay_s: float = 0.0) -> None:
        """Not done: all, or those at these indexes."""
        self._settle(range(len(self)) if indexes is None else indexes, "nack", _delay_ms(delay_s))

    def _settle_all(self, action: str) -> None:
        self._settle(range(len(self)), action)

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


def _delay_ms(seconds: float) -> int:
    if not 0 <= seconds <= 1e9:
        raise BadArgument(f"{seconds!r} seconds: 0 to 1,000,000,000")
    return int(seconds * 1_000)
