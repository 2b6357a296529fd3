"""Live messages that streams store because their configuration names the topics (SPEC.md 8.2)."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any, Final

import google_crc32c
import msgspec

from patterns.wire.errors import Overloaded, TooLarge, ZbrokerError
from patterns.wire.frames import JSON, MSGPACK, Message, pack_columns
from patterns.wire.limits import BATCH_BYTES_MAX, COLUMNS_BYTES_MAX, CREDIT_BYTES, CREDIT_MESSAGES, MIB
from patterns.wire.messages import Columns, Publish
from patterns.wire.server import Session, Sessions
from patterns.wire.subscriptions import Subscriptions
from zbroker.core.log import StreamLog
from zbroker.core.relays import live_columns
from zbroker.core.tail import Batch, Split, Stored
from zbroker.core.timers import Timers

UNPACED_BYTES_MAX: Final = (
    8 * MIB
)  # not on disk yet, of publishers that have no credit: plain ones, and the broker itself
_JSON_GROWTH_MAX: Final = 6  # as at the door for batches of producers
WARNING: Final = "capture"
_CALM_US: Final = (
    10_000_000  # a stream that is full takes one now and then: a warning that came and went each time nobody would see
)

# (stream, record's columns without its time, payload, count, now): stores a batch, and returns its record's index.
# Raises what it is refused with.
Store = Callable[[StreamLog, Stored, bytes, int, int], int]


class _Held:
    """What of a publisher is stored and not on disk yet."""

    __slots__ = ("bytes", "messages")

    def __init__(self) -> None:
        self.messages = 0
        self.bytes = 0


class Captures:
    """All streams that store live messages.

    What is stored here is published by nobody again, and what a Producer sent into a stream is not captured by that
    stream: so nothing goes round.

    Args:
        store: puts a batch at the end of a stream.
        counters: of the broker.
        timers: end a warning.
    """

    def __init__(self, sessions: Sessions, store: Store, counters: Counter[str], timers: Timers) -> None:
        self._sessions = sessions
        self._store = store
        self._counters = counters
        self._timers = timers
        self._streams: Subscriptions[StreamLog] = Subscriptions()
        self.patterns: dict[StreamLog, list[str]] = {}
        self._held: dict[Session, _Held] = {}
        self._unpaced = _Held()
        self._unsynced: deque[tuple[int, _Held, Session | None, int, int]] = deque()
        self._calm_at: int | None = None  # when the warning ends, if nothing more is dropped
        self.warn: Callable[[str, str], None] = lambda key, text: None

    def __bool__(self) -> bool:
        """Whether any stream wants anything."""
        return bool(self.patterns)

    def configured(self, log: StreamLog) -> None:
        """Its topics may be others than before."""
        for pattern in self.patterns.pop(log, ()):
            self._streams.remove(pattern, log)
        if log.config.topics:
            self.patterns[log] = patterns = list(dict.fromkeys(log.config.topics))
            for pattern in patterns:
                self._streams.add(pattern, log)

    def forget(self, log: StreamLog) -> None:
        """The stream is deleted."""
        for pattern in self.patterns.pop(log, ()):
            self._streams.remove(pattern, log)

    # -- live batches -------------------------------------------------------------------------------------------------

    def window(self, session: Session) -> tuple[int, int]:
        """The credit that a publisher may have: the whole less what of it is not on disk yet."""
        held = self._held.get(session)
        if held is None:
            return CREDIT_MESSAGES, CREDIT_BYTES
        return max(CREDIT_MESSAGES - held.messages, 0), max(CREDIT_BYTES - held.bytes, 0)

    def take(
        self,
        session: Session | None,
        message: Message,
        columns: Columns,
        topics: list[str],
        now: int,
        origin: StreamLog | None = None,
    ) -> None:
        """A checked batch was published: store what of it each stream wants.

        Args:
            session: whose credit holds it back; None: of a publisher without any.
            topics: the distinct ones.
            origin: the stream that it was stored in by its producer.
        """
        matching = self._streams.matching
        wanted: dict[StreamLog, set[str]] = {}
        for topic in topics:
            for log in matching(topic):
                if log.is_deleted:
                    self.forget(log)
                elif log is not origin:
                    wanted.setdefault(log, set()).add(topic)
        for log, some in wanted.items():
            for batch in _cut(message, columns, topics, some):
                self._capture(session, log, batch, now)

    def _capture(self, session: Session | None, log: StreamLog, batch: Batch, now: int) -> None:
        size = len(batch.columns) + len(batch.payload)
        try:
            if session is None and self._unpaced.bytes + size > UNPACED_BYTES_MAX:
                raise Overloaded(f"{self._unpaced.bytes} bytes of publishers without credit are not on disk yet")
            _check_size(batch)
            crc: int = google_crc32c.extend(google_crc32c.value(batch.columns), batch.payload)
            stored = Stored(0, 0, 0, 0, crc, batch.codec, batch.topic, 0, batch.columns)
            index = self._store(log, stored, batch.payload, batch.count, now)
        except ZbrokerError as error:
            self._drop(log, batch, error, now)
            return
        self._counters["captured"] += batch.count
        held = self._unpaced if session is None else self._held.setdefault(session, _Held())
        held.messages += batch.count
        held.bytes += size
        self._unsynced.append((index, held, session, batch.count, size))

    def _drop(self, log: StreamLog, batch: Batch, error: ZbrokerError, now: int) -> None:
        """Live, it went on its way: its publisher is not to be told."""
        self._counters["capture_dropped"] += batch.count
        is_warned, self._calm_at = self._calm_at is not None, now + _CALM_US
        if not is_warned:
            self._timers.at(self._calm_at, self._calm)
            text = f"stream {log.name!r} has not stored live messages of its topics: {error.detail}; `capture_dropped` counts them"
            self.warn(WARNING, text)

    def persisted(self, index: int) -> None:
        """Everything up to index is on disk: publishers may go on."""
        unsynced = self._unsynced
        touched: dict[Session, _Held] = {}
        while unsynced and unsynced[0][0] <= index:
            _, held, session, count, size = unsynced.popleft()
            held.messages -= count
            held.bytes -= size
            if session is not None and self._held.get(session) is held:
                touched[session] = held
        for session, held in touched.items():
            if not held.messages:
                del self._held[session]
            self._sessions.regrant(session, *self.window(session))

    def _calm(self, now: int) -> None:
        assert self._calm_at is not None
        if now < self._calm_at:
            self._timers.at(self._calm_at, self._calm)
            return
        self._calm_at = None
        self.warn(WARNING, "")

    def ended(self, session: Session) -> None:
        """A publisher is gone; what it sent is stored nevertheless."""
        self._held.pop(session, None)


def _check_size(batch: Batch) -> None:
    """Raises TooLarge."""
    if len(batch.payload) > BATCH_BYTES_MAX:
        raise TooLarge(f"a message of {len(batch.payload)} bytes, at most {BATCH_BYTES_MAX}")
    if not _fits(batch.columns):
        raise TooLarge(f"headers of {len(batch.columns)} bytes and more as JSON, at most {COLUMNS_BYTES_MAX}")


def _fits(columns: bytes) -> bool:
    if len(columns) <= COLUMNS_BYTES_MAX // _JSON_GROWTH_MAX:
        return True
    return len(pack_columns(MSGPACK.columns.decode(columns), JSON)) <= COLUMNS_BYTES_MAX


def _cut(message: Message, columns: Columns, topics: list[str], wanted: set[str]) -> Iterator[Batch]:
    """What of a batch is wanted, as batches to store: mostly one, the whole."""
    header = message.header
    assert isinstance(header, Publish)
    own = live_columns(columns)
    packed = pack_columns(own, MSGPACK)
    topic = header.topic if columns.topic is msgspec.UNSET else None
    batch = Batch(
        0, 0, header.count, header.codec, topic, 0, b"" if packed == b"\x80" else packed, _bytes(message.payload)
    )
    if len(wanted) < len(topics):
        assert columns.topic is not msgspec.UNSET
        assert columns.topics is not msgspec.UNSET
        indexes = {at for at, one in enumerate(columns.topics) if one in wanted}
        places = [slice(place, place + 1) for place, at in enumerate(columns.topic) if at in indexes]
        if places:
            yield from _picked(batch, Split(batch), places)
    elif _is_whole(batch):
        yield batch
    else:
        yield from _picked(batch, Split(batch), [slice(place, place + 1) for place in range(header.count)])


def _is_whole(batch: Batch) -> bool:
    return batch.count == 1 or (len(batch.payload) <= BATCH_BYTES_MAX and _fits(batch.columns))


def _picked(batch: Batch, split: Split, places: list[slice]) -> Iterator[Batch]:
    """These messages, one a slice, in as few batches as limits allow."""
    columns, payload = split.pick(places)
    packed = pack_columns(columns, MSGPACK)
    part = Batch(0, 0, len(places), batch.codec, batch.topic, 0, b"" if packed == b"\x80" else packed, payload)
    if _is_whole(part):
        yield part
        return
    middle = len(places) // 2
    yield from _picked(batch, split, places[:middle])
    yield from _picked(batch, split, places[middle:])


def _bytes(payload: Any) -> bytes:
    """A view would keep the whole message of the socket alive."""
    return payload if isinstance(payload, bytes) else bytes(payload)
