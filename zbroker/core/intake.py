"""The producers' side: batches are checked at the door, numbered, written, and confirmed when they are safe."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import google_crc32c
import msgspec

from patterns.wire.attributes import check_delay
from patterns.wire.codec import check
from patterns.wire.configs import CONFIRM_LEVELS
from patterns.wire.errors import (
    BadArgument,
    BadName,
    CreditExceeded,
    Fenced,
    Overloaded,
    RemoteProtocolError,
    StorageFailed,
    StorageFull,
    TooLarge,
    ZbrokerError,
)
from patterns.wire.frames import JSON, MSGPACK, Message, columns_of, pack_columns, reform
from patterns.wire.limits import (
    BATCH_BYTES_MAX,
    BODY_BYTES_MAX,
    COLUMNS_BYTES_MAX,
    CREDIT_BYTES,
    CREDIT_MESSAGES,
    REPLIES_UNREAD_CUT,
)
from patterns.wire.messages import Append, Codec, Columns, Confirm, Hello, Ready
from patterns.wire.names import check_name, check_topic
from patterns.wire.records import RecordKind
from patterns.wire.server import Session, Sessions
from zbroker.core.catalog import Catalog, Recorder
from zbroker.core.log import StreamLog
from zbroker.core.message_ids import MessageIds, Repeat, ids_of, runs_of, take_out
from zbroker.core.policy import Policy, no_stream
from zbroker.core.producers import Accepted, Producer, Producers
from zbroker.core.relays import Relays
from zbroker.core.retention import Retention
from zbroker.core.tail import IDS, TOPICS, Batch, Stored, Tail, marks_of

FULL_RETRY_MS: Final = 1_000  # a compaction takes about that long to make room

EXCEPTIONS_MAX: Final = 1_024  # in one CONFIRM, whose header is at most 64 KiB
_JSON_GROWTH_MAX: Final = (
    6  # of columns: U+0000 is six bytes there; what is below a sixth of the limit fits in any form
)
_ARRAY_BYTES: Final = 2  # what makes one body an array: "[]" in JSON, one byte in msgpack

_encode = msgspec.msgpack.Encoder().encode


class _Entry(msgspec.Struct, gc=False):
    """A batch that a session waits for."""

    batch: Accepted
    level: str
    count: int
    bytes: int
    duplicate: bool = False


class _Feeder:
    """A producer's session."""

    __slots__ = ("bytes", "confirmed", "entries", "messages", "producer", "session", "streams")

    def __init__(self, session: Session, producer: Producer) -> None:
        self.session = session
        self.producer = producer
        self.entries: deque[_Entry] = deque()
        self.confirmed = 0  # the last sequence that was
        self.messages = 0  # not confirmed yet, and so not granted again
        self.bytes = 0
        self.streams: dict[StreamLog, None] = {}


class Intake:
    """All producer sessions.

    Args:
        retention: refuses what a stream has no room for.
        stamp: the broker's own clock in ms at an instant of the engine's.
        full: refuse for now; failed: refuse for good. Set by the facade.
    """

    def __init__(
        self,
        sessions: Sessions,
        catalog: Catalog,
        recorder: Recorder,
        tail: Tail,
        stamp: Callable[[int], int],
        policy: Policy,
        retention: Retention,
    ) -> None:
        self._sessions = sessions
        self._catalog = catalog
        self._recorder = recorder
        self._tail = tail
        self._stamp = stamp
        self._policy = policy
        self._retention = retention
        self.relays = Relays()  # of what has topics
        self.producers = Producers()
        self.full = False
        self.placed_index = 0
        self.durable_index = 0
        self._feeders: dict[Session, _Feeder] = {}
        self._holders: dict[int, Session] = {}
        self._touched: dict[_Feeder, None] = {}
        self._stamped = (-1, 0)  # an instant, and its stamp: messages of one turn have the same
        self._unplaced: deque[tuple[int, StreamLog, int]] = deque()
        self._unsynced: deque[tuple[int, StreamLog, int, _Feeder | None]] = deque()

    # -- sessions -------------------------------------------------------------------------------------------------

    def admit(self, session: Session, hello: Hello, ready: Ready, now: int) -> None:
        """Give the session its identity. Raises Fenced, BadName."""
        if hello.name and len(hello.name.encode()) > 255:
            raise BadName(f"producer name of {len(hello.name.encode())} bytes, 1 to 255 allowed")
        producer, resumed = self.producers.hello(hello)
        holder = self._holders.get(producer.id)
        if holder is not None and holder is not session:
            del self._holders[producer.id]
            self._sessions.end(holder, _fenced(producer), now)
        if producer.name and not producer.journaled and not self._recorder.failed:
            self._catalog.producer(producer)
        self._feeders[session] = _Feeder(session, producer)
        self._holders[producer.id] = session
        ready.producer, ready.resumed = producer.identity(), resumed

    def ended(self, session: Session, reason: str) -> None:
        """What it had not been told it will learn when it sends it again."""
        feeder = self._feeders.pop(session, None)
        if feeder is None:
            return
        self._touched.pop(feeder, None)
        if self._holders.get(feeder.producer.id) is session:
            del self._holders[feeder.producer.id]
            self.producers.forget(feeder.producer, has_left=reason == "goodbye")

    def producers_of(self, log: StreamLog) -> int:
        """How many sessions have written to the stream since they began."""
        return sum(log in feeder.streams for feeder in self._feeders.values())

    # -- batches --------------------------------------------------------------------------------------------------

    def append(self, session: Session, message: Message, now: int) -> None:
        """An APPEND came."""
        header, size = message.header, message.size
        assert isinstance(header, Append)
        feeder = self._feeders[session]
        if not session.into.is_open:
            self._sessions.end(session, CreditExceeded(f"batch {header.sequence} came without credit"), now)
            return
        session.into.spend(header.count, size)
        columns = message.columns
        if message.form is not MSGPACK and columns:
            try:
                columns = reform(columns, message.form, MSGPACK)
            except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
                self._refuse(feeder, header, RemoteProtocolError(f"columns: {error}"), 0, now)
                return
        crc: int = google_crc32c.extend(google_crc32c.value(columns), message.payload)
        try:
            known = feeder.producer.admit(header, crc)
        except ZbrokerError as error:
            self._refuse(feeder, header, error, None, now)
            return
        if known is not None:
            self._repeat(feeder, header, known, size, now)
            return
        try:
            marks = self._check(message, header)
            log = self._catalog.by_name.get(header.stream) or self._made(header.stream)
            if header.confirm != "durable":
                _check_confirm(header, log)
            self._retention.check_room(log, size, now)
        except ZbrokerError as error:
            self._refuse(feeder, header, error, crc, now)
            return
        batch = self._store(feeder, header, log, columns, message.payload, crc, marks, now)
        is_duplicate = batch.repeats is not None and len(batch.repeats) == header.count
        self._await(feeder, _Entry(batch, header.confirm, header.count, size, is_duplicate))

    def _made(self, name: str) -> StreamLog:
        """A stream that is used before it exists. Raises NoSuchStream, BadName."""
        if not self._policy.auto_create:
            raise no_stream(check_name(name, "stream"))
        return self._catalog.stream(name)

    def _check_disk(self) -> None:
        if self._recorder.failed:
            raise StorageFailed("the broker's disk failed; nothing is stored until it is started again")
        if self.full:
            raise StorageFull("the broker's disk is full", retry_after_ms=FULL_RETRY_MS)

    def _check(self, message: Message, header: Append) -> int:
        """The marks of its batch. Raises what it is refused with."""
        self._check_disk()
        if header.confirm not in CONFIRM_LEVELS:
            raise BadArgument(f"confirm {header.confirm[:32]!r}; one of {', '.join(CONFIRM_LEVELS)}")
        if len(message.payload) > BATCH_BYTES_MAX:
            raise TooLarge(f"batch of {len(message.payload)} bytes, at most {BATCH_BYTES_MAX}")
        if header.count == 1 and len(message.payload) > BODY_BYTES_MAX + _ARRAY_BYTES:
            raise TooLarge(f"body of {len(message.payload)} bytes, at most {BODY_BYTES_MAX}")
        columns = columns_of(message, header.count)
        if len(message.columns) > COLUMNS_BYTES_MAX // _JSON_GROWTH_MAX:
            _check_columns_in_json(columns)
        sizes = None if columns.sizes is msgspec.UNSET else columns.sizes
        check(header.codec, message.payload, header.count, sizes)
        if header.topic is not None:
            check_topic(header.topic)
        if columns.topics is not msgspec.UNSET:
            for topic in columns.topics:
                check_topic(topic)
        if columns.offsets is not msgspec.UNSET or columns.published is not msgspec.UNSET:
            raise BadArgument("columns 'offsets' and 'published' are the broker's to write")
        if columns.delays is not msgspec.UNSET:
            check_delay(max(columns.delays, default=0))
        return marks_of(columns)

    def _store(
        self,
        feeder: _Feeder,
        header: Append,
        log: StreamLog,
        columns: bytes,
        payload: bytes,
        crc: int,
        marks: int,
        now: int,
    ) -> Accepted:
        producer = feeder.producer
        if not producer.journaled:
            if left := self.producers.take_left():  # beside a record that must be written anyway: no sync of its own
                self._catalog.producers_left(left)
            self._catalog.producer(producer)
        stored = Stored(
            producer.id, producer.epoch, header.sequence, header.previous, crc, header.codec, header.topic, 0, columns
        )
        stored.marks = marks
        count = header.count
        feeder.streams[log] = None
        repeats = self._repeats(log, columns, now) if marks & IDS else None
        if repeats and len(repeats) == count:
            base = repeats[0][1]
            index = self._catalog.repeated(producer, header.sequence, base, crc, repeats)
        else:
            if repeats:
                payload, count = take_out(stored, payload, count, repeats)
            index, base = self.store(log, stored, payload, count, now, feeder)
        accepted = Accepted(header.sequence, base, crc, index, None, repeats)
        producer.accept(accepted)
        return accepted

    def _repeats(self, log: StreamLog, columns: bytes, now: int) -> list[Repeat] | None:
        """Messages of a batch that are stored already; None without any."""
        if log.ids is None:
            log.ids = MessageIds()
        repeats = log.ids.repeats(ids_of(columns), log.next_offset, log.config, self._published_at(log, now))
        self._sessions.counters["duplicates"] += len(repeats)
        return repeats or None

    def recover_ids(self, log: StreamLog, stored: Stored, base: int, count: int) -> None:
        """As an APPEND record says, which a checkpoint may know."""
        if log.ids is None:
            log.ids = MessageIds()
        kept = stored.kept or [(0, count - 1)]
        offsets = [base + place for first, last in kept for place in range(first, last + 1)]
        log.ids.recover(ids_of(stored.columns), offsets, stored.published_at, log.config)

    def _published_at(self, log: StreamLog, now: int) -> int:
        """What a batch that is stored now gets; ms since 1970, and never less than the one before."""
        at, stamp = self._stamped
        if at != now:
            stamp = self._stamp(now)
            self._stamped = now, stamp
        return max(stamp, log.published_at)

    def capture(self, log: StreamLog, stored: Stored, payload: bytes, count: int, now: int) -> int:
        """Store live messages; returns the record's index. Raises what a producer would be refused with."""
        self._check_disk()
        self._retention.check_room(log, len(payload) + len(stored.columns), now)
        return self.store(log, stored, payload, count, now)[0]

    def store(
        self, log: StreamLog, stored: Stored, payload: bytes, count: int, now: int, feeder: _Feeder | None = None
    ) -> tuple[int, int]:
        """Put a batch at the end of a stream, at the broker's own time, which is filled in.

        Args:
            feeder: whom to tell when it is safe; nobody, of a batch of the broker's own.

        Returns:
            The index of its record, and its first offset.
        """
        stored.published_at = self._published_at(log, now)
        base = log.next_offset
        index, number = self._write(log, stored, payload, count)
        batch = Batch(index, base, count, stored.codec, stored.topic, stored.published_at, stored.columns, payload)
        batch.marks, batch.group = stored.marks, stored.group
        self._tail.put((log.id, number), batch)
        self._unsynced.append((index, log, base + count, feeder))
        if stored.marks & IDS:
            if log.ids is None:
                log.ids = MessageIds()
            log.ids.note(ids_of(stored.columns), range(base, base + count), stored.published_at, log.config)
        if (stored.topic is not None or stored.marks & TOPICS) and feeder is not None:
            self.relays.expect(index, log, batch)
        return index, base

    def _write(self, log: StreamLog, stored: Stored, payload: bytes, count: int) -> tuple[int, int]:
        """The record of a batch at the end of its stream; its index, and the batch's number."""
        base = log.next_offset
        index = self._recorder.write(
            RecordKind.APPEND, payload, columns=_encode(stored), stream_id=log.id, base_offset=base, count=count
        )
        number = log.append(index, count, len(payload), stored.published_at)
        self._unplaced.append((index, log, number))
        return index, number

    def adopt(
        self,
        stream: str,
        codec: Codec,
        topic: str | None,
        published_at: int,
        columns: bytes,
        payload: bytes,
        count: int,
    ) -> None:
        """Store a batch that no producer sends: an import. Nobody is told.

        Args:
            published_at: ms since 1970; never below that of the message before.

        Raises:
            BadName: the stream's name is none.
        """
        log = self._catalog.stream(stream)
        crc: int = google_crc32c.extend(google_crc32c.value(columns), payload)
        at = max(published_at, log.published_at)
        self._write(log, Stored(0, 0, 0, 0, crc, codec, topic, at, columns), payload, count)

    def _repeat(self, feeder: _Feeder, header: Append, known: Accepted, size: int, now: int) -> None:
        if known.error is not None:
            self._refuse(feeder, header, known.error, None, now)
            return
        self._await(feeder, _Entry(known, header.confirm, header.count, size, duplicate=True))

    def _await(self, feeder: _Feeder, entry: _Entry) -> None:
        feeder.entries.append(entry)
        feeder.messages += entry.count
        feeder.bytes += entry.bytes
        if entry.duplicate or entry.level != "durable":
            self._touched[feeder] = None

    def _refuse(self, feeder: _Feeder, header: Append, error: ZbrokerError, crc: int | None, now: int) -> None:
        """Tell it. With a crc the batch counts as accepted for what follows, unless it may be tried again (SPEC.md 9.1)."""
        session = feeder.session
        if isinstance(error, Fenced):
            self._sessions.end(session, error, now)
            return
        if session.unread >= REPLIES_UNREAD_CUT:
            # a refusal that is not said would be covered by the next CONFIRM: a lie
            self._sessions.end(session, Overloaded("too many errors that were not read"), now)
            return
        if (
            crc is not None
            and not error.retryable
            and header.previous == feeder.producer.sequence
            and header.sequence > header.previous
        ):
            feeder.producer.accept(Accepted(header.sequence, 0, crc, 0, error.anew()))
        self._sessions.refuse(session, error, "append", header.sequence)
        self._regrant(feeder)

    # -- the journal's news ---------------------------------------------------------------------------------------

    def placed(self, index: int) -> tuple[StreamLog, int] | None:
        """The journal has taken the record; which batch it is, if it is one."""
        self.placed_index = index
        if self._unplaced and self._unplaced[0][0] == index:
            _, log, number = self._unplaced.popleft()
            return log, number
        return None

    def persisted(self, index: int, now: int) -> dict[StreamLog, None]:
        """Everything up to index is on disk; returns the streams that have something new to deliver."""
        self.durable_index = index
        grown: dict[StreamLog, None] = {}
        unsynced, touched = self._unsynced, self._touched  # the session may be gone; confirm() knows
        while unsynced and unsynced[0][0] <= index:
            _, log, end, feeder = unsynced.popleft()
            log.durable_next = end
            grown[log] = None
            if feeder is not None:
                touched[feeder] = None
        self._tail.trim(index)
        self.confirm()
        self.relays.persisted(index, now)
        return grown

    def confirm(self) -> None:
        """One CONFIRM for each session of which something got as safe as it asked."""
        if self._recorder.failed:
            return
        touched, self._touched = self._touched, {}
        for feeder in touched:
            if self._feeders.get(feeder.session) is not feeder:
                continue  # gone, or resumed: then the client sends again what it was not told
            self._confirm(feeder)
            # the original of a duplicate may be of a session that is gone, and "written" has no call of its own
            if feeder.entries and (feeder.entries[0].duplicate or feeder.entries[0].level == "written"):
                self._touched[feeder] = None

    def _confirm(self, feeder: _Feeder) -> None:
        entries = feeder.entries
        offsets: list[int] = []
        duplicates: list[int] = []
        exceptions: list[tuple[int, int, int, int]] = []
        sequence = 0
        while entries and self._is_safe(entries[0]):
            entry = entries.popleft()
            sequence = entry.batch.sequence
            offsets.append(entry.batch.offset)
            if entry.duplicate:
                duplicates.append(sequence)
            if entry.batch.repeats:
                exceptions += [(sequence, *run) for run in runs_of(entry.batch.repeats)]
            feeder.messages -= entry.count
            feeder.bytes -= entry.bytes
        if offsets:
            while len(exceptions) > EXCEPTIONS_MAX:
                part, exceptions = exceptions[:EXCEPTIONS_MAX], exceptions[EXCEPTIONS_MAX:]
                self._sessions.answer(feeder.session, Confirm(feeder.confirmed, [], [], part))
            self._sessions.answer(feeder.session, Confirm(sequence, offsets, duplicates, exceptions))
            feeder.confirmed = sequence
            self._regrant(feeder)

    def _is_safe(self, entry: _Entry) -> bool:
        index = entry.batch.index
        match entry.level:
            case "received":
                return True
            case "written":
                return index <= max(self.placed_index, self.durable_index)
            case _:
                return index <= self.durable_index

    def _regrant(self, feeder: _Feeder) -> None:
        """The window less what is not safe yet: so unsynced bytes stay within it, however the client sends."""
        self._sessions.regrant(
            feeder.session, max(CREDIT_MESSAGES - feeder.messages, 0), max(CREDIT_BYTES - feeder.bytes, 0)
        )


def _check_confirm(header: Append, log: StreamLog) -> None:
    """Raises BadArgument."""
    least = log.config.confirm_min
    if CONFIRM_LEVELS.index(header.confirm) < CONFIRM_LEVELS.index(least):
        raise BadArgument(
            f"confirm {header.confirm!r} is less than stream {log.name!r} admits: use {least!r}, or change its confirm_min"
        )


def _check_columns_in_json(columns: Columns) -> None:
    """Else a peer that speaks JSON could never be given them. Raises TooLarge."""
    size = len(pack_columns(columns, JSON))
    if size > COLUMNS_BYTES_MAX:
        raise TooLarge(
            f"columns of {size} bytes when written as JSON, at most {COLUMNS_BYTES_MAX}; send fewer messages a batch"
        )


def _fenced(producer: Producer) -> Fenced:
    return Fenced(
        f"producer {producer.name!r} was started again elsewhere, as epoch {producer.epoch}, so this one is over: "
        "a name is for one Producer at a time"
    )
