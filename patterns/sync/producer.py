"""The Producer of the sync shell."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Final, overload

import msgspec

from patterns.core.produce import Batch, Confirmed, ProducerEngine, batch_of
from patterns.io.clock import clock
from patterns.io.driver import Driver
from patterns.io.links import SocketKind
from patterns.roles.role import codec_of, deadline_of, jitter, new_nonce, raise_error, refuse_security, resolve
from patterns.sync.role import SyncRole
from patterns.wire.codec import encode, encode_body
from patterns.wire.errors import (
    BadBody,
    BufferFull,
    Closed,
    NotInThisDeployment,
    OutcomeUnknown,
    TimedOut,
    TooLarge,
    ZbrokerError,
)
from patterns.wire.limits import BATCH_BYTES_TARGET, BATCH_MESSAGES_MAX
from patterns.wire.names import check_name

_log = logging.getLogger("zbroker.producer")
_UNCONFIRMED_BYTES_MAX: Final = 16 * 1024 * 1024  # held for another try; 250 full batches
_MESSAGES_AT_FIRST: Final = 256  # of a batch, before the size of bodies is known
_MESSAGES_MAX: Final = 8_192


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """A message is on disk: its offset in the stream, and whether an earlier try had stored it already."""

    offset: int
    duplicate: bool = False


class Receipts(Sequence[Receipt]):
    """The receipts of many messages, made as they are looked at."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = batches
        self._ends: list[int] = []
        end = 0
        for batch in batches:
            end += batch.count
            self._ends.append(end)

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
        return Receipt(batch.offset + place - (self._ends[low] - batch.count), batch.duplicate)


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


class Posted:
    """A message on its way; see Producer.post()."""

    __slots__ = ("_batch", "_callbacks", "_error", "_index", "_producer")

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._batch: Batch | None = None
        self._index = 0
        self._error: ZbrokerError | None = None
        self._callbacks: list[Callable[[Posted], object]] = []

    def done(self) -> bool:
        """Whether it is on disk, or refused."""
        return self._error is not None or (self._batch is not None and self._batch.done)

    def result(self, timeout_s: float | None = None) -> Receipt:
        """Wait for the receipt. Raises TimedOut, or what the message was refused for."""
        self._producer._wait(self.done, timeout_s, "the message has no confirm yet")
        error = self._error or (self._batch.error if self._batch is not None else None)
        if error is not None:
            raise error
        assert self._batch is not None
        return Receipt(self._batch.offset + self._index, self._batch.duplicate)

    def add_done_callback(self, call: Callable[[Posted], object]) -> None:
        """Call with this object when it is done, from whichever thread drives; at once if it is done already."""
        self._callbacks.append(call)
        if self.done():
            self._run_callbacks()

    def _run_callbacks(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for call in callbacks:
            try:
                call(self)
            except Exception:  # noqa: BLE001  around a user's callback: the producer goes on
                _log.exception("a callback of a posted message failed")


_Item = tuple[Any, "str | None", "dict[str, str] | None", "str | None", "str | None", Posted]


class Producer(SyncRole):
    """Appends messages to a stream, each stored once and confirmed when it is on disk; threads may share it.

    Args:
        address: `zb://` of brokers. None: ZBROKER_URL.
        stream: made by first use.
        codec: of the bodies.
        name: keeps the producer's identity over restarts of the program and shuts out its older self.
        timeout_s: how long send() waits for its confirm, and post() for room.
        unconfirmed_bytes_max: what may be under way.
        security: not built yet.

    Raises:
        BadAddress, BadName, BadArgument; NotInThisDeployment peer to peer.
    """

    def __init__(
        self,
        address: str | None,
        stream: str,
        *,
        codec: str = "msgpack",
        name: str = "",
        timeout_s: float = 10.0,
        unconfirmed_bytes_max: int = _UNCONFIRMED_BYTES_MAX,
        security: object = None,
    ) -> None:
        refuse_security(security)
        addresses = resolve(address)
        if not addresses[0].brokered:
            raise NotInThisDeployment("a Producer needs a broker with a journal in this version: use a zb:// address")
        check_name(stream, "stream")
        if name:
            check_name(name, "producer")
        self._codec = codec_of(codec)
        self._timeout_s = timeout_s
        self._bytes_max = unconfirmed_bytes_max
        self._engine = ProducerEngine(addresses, stream, new_nonce(), self._codec, jitter, name)
        self._posted: list[_Item] = []
        self._per_batch = _MESSAGES_AT_FIRST
        self._mean_bytes = BATCH_BYTES_TARGET // _MESSAGES_AT_FIRST
        self._owners: dict[int, list[Posted]] = {}  # batches (by id) with Posted objects that have callbacks to run
        self._driver = Driver(
            self._engine,
            SocketKind.DEALER,
            self._take,
            before_turn=self._drain,
            in_background=self._wants_keeper,
        )
        self._driver.start()

    def _wants_keeper(self) -> bool:
        engine = self._engine
        return not engine.closed and engine.error is None and (not engine.is_ready or engine.unconfirmed > 0)

    def _take(self, events: list[Any]) -> None:
        for event in events:
            if isinstance(event, Confirmed):
                for batch in event.batches:
                    for posted in self._owners.pop(id(batch), ()):
                        if posted._callbacks:
                            self._driver.defer(posted._run_callbacks)

    # -- one at a time -------------------------------------------------------------------------------------------

    def send(
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
            key, headers, topic, message_id: travel with it.
            delay_s: not built yet.

        Raises:
            TimedOut: no confirm in time; it may be stored nevertheless.
            StorageFull, StorageFailed, OutcomeUnknown, Fenced: see their texts.
            BadBody, TooLarge, BadName.
        """
        self._driver.check()
        _refuse_unbuilt(topic, delay_s)
        part = encode(self._codec, [body], self._engine.sessions[0].limits.body_bytes_max)[0]
        batch = batch_of(self._codec, part, keys=[key], headers=[headers], ids=[message_id])
        self._append([batch])
        self._wait(lambda: batch.done, self._timeout_s, "the broker has not confirmed it")
        if batch.error is not None:
            raise batch.error
        return Receipt(batch.offset, batch.duplicate)

    def _append(self, batches: list[Batch]) -> None:
        driver = self._driver
        with driver.lock:
            now = clock()
            self._drain(now)  # what was posted before goes before
            self._engine.append(batches, now)

    def _wait(self, done: Callable[[], bool], timeout_s: float | None, what: str) -> None:
        driver, engine = self._driver, self._engine
        if driver.wait(lambda: done() or engine.error is not None or driver.is_closed, deadline_of(timeout_s)):
            if not done():
                raise_error(engine)
                raise Closed("this producer was closed")
            return
        if engine.hindrance is not None:
            raise engine.hindrance
        if not engine.is_ready:
            raise engine.unavailable()
        raise TimedOut(f"{what} within {timeout_s} s; it may be stored nevertheless")

    # -- many ----------------------------------------------------------------------------------------------------

    def send_many(self, bodies: Iterable[Any]) -> Receipts:
        """Store many messages, pipelined; returns when all are on disk. Not atomic.

        Raises:
            SendManyError: one was refused; `.receipts` of those before it, `.index` of the first without one.
            TimedOut, Unavailable: no progress for `timeout_s`.
        """
        self._driver.check()
        source = iter(bodies)
        batches: list[Batch] = []
        unfinished = 0
        while chunk := list(islice(source, self._per_batch)):
            try:
                made = self._batches(chunk)
            except (BadBody, TooLarge):
                made = self._batches(self._until_bad(chunk))
                self._append(made)
                raise self._stopped([*batches, *made], self._bad(chunk)) from None
            batches.extend(made)
            self._wait(self._has_room, self._timeout_s, "the broker takes no more")
            self._append(made)
            self._driver.burst()
            while unfinished < len(batches) and batches[unfinished].done:
                unfinished += 1
            if unfinished and batches[unfinished - 1].error is not None:
                raise self._stopped(batches, None)
        self._wait(lambda: all(batch.done for batch in batches), None, "")
        if any(batch.error is not None for batch in batches):
            raise self._stopped(batches, None)
        return Receipts(batches)

    def _batches(self, bodies: Sequence[Any]) -> list[Batch]:
        parts = encode(self._codec, bodies, self._engine.sessions[0].limits.body_bytes_max) if bodies else []
        for part in parts:
            self._learn(part.count, len(part.payload))
        return [batch_of(self._codec, part) for part in parts]

    def _learn(self, count: int, size: int) -> None:
        self._mean_bytes = max(1, size // count)
        self._per_batch = min(max(1, BATCH_BYTES_TARGET // self._mean_bytes), _MESSAGES_MAX, BATCH_MESSAGES_MAX)

    def _until_bad(self, bodies: list[Any]) -> list[Any]:
        good = []
        for body in bodies:
            try:
                encode_body(self._codec, body)
            except (BadBody, TooLarge):
                break
            good.append(body)
        return good

    def _bad(self, bodies: list[Any]) -> ZbrokerError:
        for body in bodies:
            try:
                encode_body(self._codec, body)
            except (BadBody, TooLarge) as error:
                return error
        raise AssertionError("one of them was refused a moment ago")

    def _stopped(self, batches: list[Batch], cause: ZbrokerError | None) -> SendManyError:
        """What send_many() raises; what is under way is waited for, so that the receipts are true."""
        self._wait(lambda: all(batch.done for batch in batches), self._timeout_s, "some messages have no confirm")
        good: list[Batch] = []
        for batch in batches:
            if batch.error is not None:
                cause = batch.error
                break
            good.append(batch)
        receipts = Receipts(good)
        assert cause is not None
        return SendManyError(cause, receipts, len(receipts))

    # -- posted --------------------------------------------------------------------------------------------------

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
        """Hand a message over and return at once while there is room. The body must not be changed afterwards.

        Raises:
            BufferFull: no room within `timeout_s`.
            Closed, Forked, Unavailable.
        """
        if topic is not None or delay_s is not None:
            _refuse_unbuilt(topic, delay_s)
        posted = Posted(self)
        self._posted.append((body, key, headers, topic, message_id, posted))
        if len(self._posted) >= self._per_batch:
            self._post_now()
        elif not self._driver.kicked:
            self._driver.check()
            self._driver.kick()
        return posted

    def _post_now(self) -> None:
        driver = self._driver
        driver.check()
        driver.burst()
        if not self._has_room() and not driver.wait(self._may_go_on, deadline_of(self._timeout_s)):
            cause = self._engine.hindrance
            why = f": {cause.detail}" if cause is not None else ""
            raise BufferFull(
                f"{self._engine.unconfirmed_bytes} bytes wait for their confirm, at most {self._bytes_max}{why}"
            )
        driver.check()

    def _has_room(self) -> bool:
        return self._engine.unconfirmed_bytes < self._bytes_max

    def _may_go_on(self) -> bool:
        return self._has_room() or self._driver.is_closed or self._engine.error is not None

    def _drain(self, now: int) -> None:
        """Make batches of what was posted; other threads may go on posting."""
        end = len(self._posted)
        if not end:
            return
        items = self._posted[:end]
        del self._posted[:end]
        for begin in range(0, end, self._per_batch):
            self._drain_part(items[begin : begin + self._per_batch], now)

    def _drain_part(self, items: list[_Item], now: int) -> None:
        bodies, keys, headers, _topics, ids, posted = (list(column) for column in zip(*items, strict=True))
        try:
            parts = encode(self._codec, bodies, self._engine.sessions[0].limits.body_bytes_max)
        except (BadBody, TooLarge) as error:
            if len(items) == 1:
                posted[0]._error = error
                self._driver.defer(posted[0]._run_callbacks)
            else:  # one by one, to keep the order and find the bad one
                for item in items:
                    self._drain_part([item], now)
            return
        begin = 0
        for part in parts:
            end = begin + part.count
            batch = batch_of(
                self._codec, part, keys=keys[begin:end], headers=headers[begin:end], ids=ids[begin:end]
            )  # fmt: skip
            self._learn(part.count, len(part.payload))
            self._own(batch, posted[begin:end])
            self._engine.append([batch], now)
            begin = end

    def _own(self, batch: Batch, posted: list[Posted]) -> None:
        for index, one in enumerate(posted):
            one._batch, one._index = batch, index
        self._owners[id(batch)] = posted

    def flush(self, timeout_s: float = 10.0) -> None:
        """Return when everything posted is confirmed or refused. Raises TimedOut, and what a refusal of the session was."""
        self._driver.check()
        self._wait(self._all_done, timeout_s, "not everything posted is confirmed")

    def _all_done(self) -> bool:
        return not self._posted and self._engine.unconfirmed == 0

    @property
    def unconfirmed_bytes(self) -> int:
        """Bytes that are under way."""
        return self._engine.unconfirmed_bytes

    def close(self, timeout_s: float = 5.0) -> None:
        """Wait for the confirms of what was posted, then let go; what has none by then is OutcomeUnknown."""
        driver = self._driver
        if not driver.is_closed and not driver.forked:
            if self._engine.error is None:
                driver.wait(lambda: self._all_done() or self._engine.error is not None, clock() + int(timeout_s * 1e6))
            driver.run(lambda now: self._engine.shed(OutcomeUnknown("the producer was closed before the confirm came")))
        super().close(timeout_s)


def _refuse_unbuilt(topic: str | None, delay_s: float | None) -> None:
    if topic is not None or delay_s is not None:
        raise NotInThisDeployment("topic= and delay_s= of a Producer are not built in this version")
