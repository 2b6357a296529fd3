"""What a Producer gives back: receipts, and posted messages on their way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self, overload

import msgspec

from patterns.core.produce import Batch
from patterns.io.waiting import Steps
from patterns.roles.arguments import check_callable
from patterns.wire.errors import ZbrokerError
from patterns.wire.words import counted

if TYPE_CHECKING:
    from patterns.roles.producer import ProducerRole

_log = logging.getLogger("zbroker.producer")


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """A message is on disk: its offset in the stream, and whether an earlier try had stored it already.

    The offset is None where the disk is that of the Producer's own journal, from which the message is still to be forwarded.
    """

    offset: int | None
    duplicate: bool = False


def receipt_of(batch: Batch, place: int) -> Receipt:
    """Of a message of a batch that is done."""
    return Receipt(None) if batch.offset < 0 else Receipt(*batch.receipt(place))


def _stored_before(batch: Batch) -> int:
    """How many of its messages an earlier try, or another message with their ids, had stored."""
    return batch.count if batch.duplicate else sum(count for _, _, count in batch.repeats or ())


class Receipts(Sequence[Receipt]):
    """The receipts of many messages, made as they are looked at."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = batches
        self._ends: list[int] = []
        end = 0
        for batch in batches:
            end += batch.count
            self._ends.append(end)

    def __repr__(self) -> str:
        if not self._batches:
            return "<no receipts>"
        again = sum(map(_stored_before, self._batches))
        first, last = self[0].offset, self[-1].offset
        if first is None:
            return f"<{counted(len(self), 'receipt')}, in the producer's own journal>"
        where = f"offset {first}" if len(self) == 1 else f"offsets {first} to {last}"
        return f"<{counted(len(self), 'receipt')}, {where}{f', {again} stored before' if again else ''}>"

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Receipt: ...
    @overload
    def __getitem__(self, index: slice) -> list[Receipt]: ...
    def __getitem__(self, index: int | slice) -> Receipt | list[Receipt]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"receipt {index} of {len(self)}")
        low, high = 0, len(self._ends) - 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if place < self._ends[middle] else (middle + 1, high)
        batch = self._batches[low]
        return receipt_of(batch, place - (self._ends[low] - batch.count))


class SendManyError(ZbrokerError):
    """send_many() stopped at a message that was refused.

    Attributes:
        receipts: of the messages before it.
        index: of the first message that has no receipt.
    """

    def __init__(self, cause: ZbrokerError, receipts: Receipts, index: int) -> None:
        super().__init__(f"message {index} was not stored: {cause.detail}", code=cause.code, retryable=cause.retryable)
        self.receipts = receipts
        self.index = index


class PostedRole(msgspec.Struct, gc=False, eq=False):
    """A message on its way; see Producer.post(). How it is waited for is the shells' matter.

    Not tracked by the garbage collector: a hundred thousand a second would have it look at all of a program's objects seven times a second.
    """

    _producer: ProducerRole[Any]
    _body: Any  # and what travels with it, until it is in a batch
    _key: str | None = None
    _headers: dict[str, str] | None = None
    _message_id: str | None = None
    _topic: str | None = None
    _delay_ms: int = 0
    _batch: Batch | None = None
    _index: int = 0
    _error: ZbrokerError | None = None
    _callbacks: list[Callable[[Any], object]] | None = None

    def __repr__(self) -> str:
        error = self._error or (self._batch.error if self._batch is not None else None)
        if error is not None:
            return f"<{type(self).__name__}, refused: {error!r}>"
        if not self.done():
            return f"<{type(self).__name__}, on its way>"
        assert self._batch is not None
        offset = receipt_of(self._batch, self._index).offset
        where = "in the producer's own journal" if offset is None else f"offset {offset}"
        return f"<{type(self).__name__}, stored, {where}>"

    def done(self) -> bool:
        """Whether it is on disk, or refused."""
        return self._error is not None or (self._batch is not None and self._batch.done)

    def _result(self, timeout_s: float | None) -> Steps[Receipt]:
        yield from self._producer._until(self.done, timeout_s, "the message has no confirm yet")
        error = self._error or (self._batch.error if self._batch is not None else None)
        if error is not None:
            raise error.anew()
        assert self._batch is not None
        return receipt_of(self._batch, self._index)

    def add_done_callback(self, call: Callable[[Self], object]) -> None:
        """Call with this object when it is done, from whichever thread drives; at once if it is done already."""
        check_callable("call", call)
        if self._callbacks is None:
            self._callbacks = []
        self._callbacks.append(call)
        if self.done():
            self._run_callbacks()

    def _run_callbacks(self) -> None:
        callbacks, self._callbacks = self._callbacks, None
        for call in callbacks or ():
            try:
                call(self)
            except Exception:  # noqa: BLE001  around a user's callback: the producer goes on
                _log.exception("a callback of a posted message failed")
