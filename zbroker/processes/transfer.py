"""Messages of a data folder as plain values, and back; without a broker. What a line looks like is the caller's."""

from __future__ import annotations

import base64
import binascii
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Final, NamedTuple, Self

import msgspec

from patterns.wire import codec
from patterns.wire.attributes import check_attributes
from patterns.wire.errors import BadBody, NoSuchStream, ShuttingDown
from patterns.wire.frames import MSGPACK, pack_columns
from patterns.wire.limits import BATCH_BYTES_TARGET, BATCH_MESSAGES_MAX, BODY_BYTES_MAX, COLUMNS_BYTES_TARGET
from patterns.wire.messages import Codec, Columns, Hello, Ready
from patterns.wire.names import check_name, check_topic
from patterns.wire.records import Position, Record, RecordKind
from patterns.wire.server import Session, Sessions
from zbroker.core import checkpoint
from zbroker.core.catalog import Catalog, Recorder
from zbroker.core.effects import Append, Effect
from zbroker.core.producers import Producers
from zbroker.core.streams import Streams
from zbroker.core.tail import Split, batch_of
from zbroker.store.disk import Disk
from zbroker.store.folder import hold_for_reading
from zbroker.store.journal import FileJournal
from zbroker.store.listing import cut_short, list_segments
from zbroker.store.liveness import Liveness
from zbroker.store.note import read_note
from zbroker.store.recovery import Progress
from zbroker.store.replay import read_whole
from zbroker.store.restore import restore_newest

_COMMIT_EACH: Final = 16  # batches: about what one sync covers
_TOLD: Final = 20  # names of streams in an error
_PUBLISHED_MAX: Final = (
    253_402_300_799_999  # the year 9999, where clients' calendars end; later messages are no earlier
)
_ABSENT: Final = msgspec.UNSET


class Exported(msgspec.Struct):
    """One message; `body` encoded in `codec`, as its producer sent it."""

    stream: str
    offset: int
    published_at: int
    codec: Codec
    body: bytes
    key: str | None = None
    headers: dict[str, str] | None = None
    topic: str | None = None


class Names:
    """Knows what streams are called, from a checkpoint or from records."""

    def __init__(self) -> None:
        self.catalog = Catalog(Recorder([]))

    def restore(self, chunks: Iterable[bytes]) -> bool:
        try:
            checkpoint.restore(chunks, self.catalog, Producers())
        except checkpoint.NOT_OURS:
            self.catalog.clear()
            return False
        return True

    def index(self, chunk: bytes) -> bool:
        return True  # places are of no interest here

    def reindex(self, record: Record, position: Position) -> None: ...

    def learn(self, record: Record) -> None:
        """A CATALOG record; one that a later version wrote tells nothing."""
        try:
            self.catalog.recover(record.index, record.payload)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            pass


class Left(NamedTuple):
    """What an export has left out, or may have: batches that could not be understood, places with damage."""

    batches: int
    places: int


def export(disk: Disk, folder: str, wanted: str | None, take: Callable[[Exported], None], progress: Progress) -> Left:
    """Hand over every readable message, in the order of the log; returns what of it is not there.

    Args:
        wanted: the name of the one stream to export; None: all.
        progress: hears bytes of the folder as they are begun.

    Raises:
        JournalError: a broker runs on the folder, or there is no journal in it.
        NoSuchStream: none of that name is in it.
    """
    lock = hold_for_reading(disk, folder)
    names, faults = Names(), 0

    def visit(record: Record, position: Position) -> None:
        nonlocal faults
        if record.kind == RecordKind.CATALOG:
            names.learn(record)
        elif record.kind == RecordKind.APPEND:
            name = names.catalog.known(record.stream_id).name
            if wanted in (None, name):
                try:
                    for message in _messages(name, record):
                        take(message)
                except (msgspec.MsgspecError, BadBody, UnicodeError):
                    faults += 1

    try:
        files = list_segments(disk, folder)
        note = None if lock is None else read_note(disk, lock)
        restored = restore_newest(disk, folder, files, names, Liveness(), note)
        whole = read_whole(disk, files, visit, restored.meta, note, progress)
    finally:
        if lock is not None:
            disk.close(lock)
    if wanted is not None and wanted not in names.catalog.by_name:
        there = sorted(names.catalog.by_name)
        more = f" and {len(there) - _TOLD} more" if len(there) > _TOLD else ""
        raise NoSuchStream(
            f"stream {wanted!r} is not in {folder}; there are: {', '.join(there[:_TOLD]) or 'none'}{more}"
        )
    return Left(faults, len(whole.found or whole.known) + len(cut_short(files)))


def _messages(stream: str, record: Record) -> Iterator[Exported]:
    batch = batch_of(record)
    split = Split(batch)
    for place, (offset, item) in enumerate(zip(batch.offsets(), split.items, strict=True)):
        yield Exported(
            stream=stream,
            offset=offset,
            published_at=batch.published_at,
            codec=batch.codec,
            body=bytes(item),
            key=_at(split.columns.keys, place),
            headers=_at(split.columns.headers, place),
            topic=_topic(split.columns, place) or batch.topic,
        )


def _at(column: Any, place: int) -> Any:
    return None if column is _ABSENT else column[place]


def _topic(columns: Columns, place: int) -> str | None:
    if columns.topics is _ABSENT or columns.topic is _ABSENT:
        return None
    topics: list[str] = columns.topics
    return topics[columns.topic[place]]


class _Line(msgspec.Struct):
    """A line to import; `offset` and what else it says is of no use."""

    stream: str | None = None
    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    body_base64: str | msgspec.UnsetType = msgspec.UNSET
    codec: Codec = Codec.JSON
    key: str | None = None
    headers: dict[str, str] | None = None
    topic: str | None = None
    published_at: Annotated[int, msgspec.Meta(ge=0, le=_PUBLISHED_MAX)] | None = None


_line = msgspec.json.Decoder(_Line).decode


def imported(text: bytes, stream: str | None, now_ms: int) -> Exported:
    """The message of a line of JSON.

    Args:
        stream: goes before the line's own.
        now_ms: published then, if the line does not say.

    Raises:
        BadBody: it is none; the text says what is missing.
    """
    try:
        line = _line(text)
        name = stream or line.stream
        if name is None:
            raise BadBody("no `stream`, and no --stream for all")
        if isinstance(line.body_base64, str):
            body = base64.b64decode(line.body_base64, validate=True)
        elif line.body is msgspec.UNSET or line.codec is Codec.RAW:
            raise BadBody("no `body_base64`" if line.codec is Codec.RAW else "neither `body` nor `body_base64`")
        elif line.codec is Codec.JSON:
            body = bytes(line.body)
        else:
            body = codec.encode_body(line.codec, msgspec.json.decode(line.body))
        codec.items_of(line.codec, codec.join(line.codec, [body]), 1, None)  # decoding has looked into no Raw
    except (msgspec.MsgspecError, UnicodeError, RecursionError, binascii.Error) as error:
        raise BadBody(f"not a message to import: {error}") from error
    at = now_ms if line.published_at is None else line.published_at
    return Exported(name, 0, at, line.codec, body, line.key, line.headers, line.topic)


class Importer:
    """Appends messages to the streams of a folder, as batches like those that they were. A context manager.

    Raises:
        JournalError: a broker runs on the folder, or it is no journal's, or full, or its disk failed.
    """

    def __init__(self, journal: FileJournal) -> None:
        self._journal = journal
        self._effects: list[Effect] = []
        sessions = Sessions(_Nobody(), self._effects, 0)  # type: ignore[arg-type]
        self._streams = Streams(sessions, self._effects, lambda now: 0)
        opened = journal.open(self._streams.recover, self._streams)
        self._streams.opened(opened.epoch, opened.next_index, 0)
        self.damaged = len(opened.damage)  # places in what was there before
        self.notes = journal.notes  # what else is to be said of it
        self._batch: list[Exported] = []
        self._bytes = 0
        self._columns_bytes = 0
        self._batches = 0
        self._waiting: deque[tuple[int, int]] = deque()  # of batches handed over: index of the record, messages
        self.stored = 0  # messages known to be on the disk; all that are, after close()

    def add(self, message: Exported) -> None:
        """Take a message; it is on disk after close() at the latest.

        Raises:
            BadName, BadBody, BadArgument, TooLarge: this message cannot be stored; the ones before it are.
        """
        check_name(message.stream, "stream")
        if message.topic is not None:
            check_topic(message.topic)
        if len(message.body) > BODY_BYTES_MAX:
            raise codec.too_large(len(message.body), message.codec, BODY_BYTES_MAX)
        check_attributes(message.key, message.headers, None)
        columns_bytes = _columns_bytes(message)
        is_full = self._bytes + len(message.body) > BATCH_BYTES_TARGET or len(self._batch) == BATCH_MESSAGES_MAX
        is_full |= self._columns_bytes + columns_bytes > COLUMNS_BYTES_TARGET
        if self._batch and (is_full or _batch_of(self._batch[0]) != _batch_of(message)):
            self._flush()
        self._batch.append(message)
        self._bytes += len(message.body)
        self._columns_bytes += columns_bytes

    def _flush(self) -> None:
        batch, self._batch, self._bytes, self._columns_bytes = self._batch, [], 0, 0
        if not batch:
            return
        kind = batch[0].codec
        columns = Columns()
        if kind is Codec.RAW and len(batch) > 1:
            columns.sizes = [len(one.body) for one in batch]
        if any(one.key is not None for one in batch):
            columns.keys = [one.key for one in batch]
        if any(one.headers is not None for one in batch):
            columns.headers = [one.headers for one in batch]
        packed = pack_columns(columns, MSGPACK)
        payload = codec.join(kind, [one.body for one in batch])
        self._streams.adopt(
            batch[0].stream, kind, batch[0].topic, batch[0].published_at, packed if columns != Columns() else b"", payload, len(batch)
        )  # fmt: skip
        index = 0
        for effect in self._effects:
            if isinstance(effect, Append):
                index = effect.record.index
                self._streams.placed(index, self._journal.append(effect.record))
        self._effects.clear()
        self._batches += 1
        self._waiting.append((index, len(batch)))
        if self._batches % _COMMIT_EACH == 0:
            self._journal.commit(0)
            self._count()

    def _count(self) -> None:
        waiting, durable = self._waiting, self._journal.durable_index
        while waiting and waiting[0][0] <= durable:
            self.stored += waiting.popleft()[1]

    def close(self) -> None:
        """Make all of it durable, and let go of the folder."""
        try:
            self._flush()
        finally:
            try:
                self._journal.close()
            finally:
                self._count()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _columns_bytes(message: Exported) -> int:
    """About what key and headers take in the columns."""
    if message.key is None and message.headers is None:
        return 1
    return len(msgspec.msgpack.encode((message.key, message.headers)))


def _batch_of(message: Exported) -> tuple[object, ...]:
    """What all messages of a batch have in common."""
    return message.stream, message.codec, message.topic, message.published_at


class _Nobody:
    """The host of no session: an import has no peers."""

    def admit(self, session: Session, hello: Hello, now: int) -> Ready:
        raise ShuttingDown("nobody is served here")

    def ended(self, session: Session, reason: str, now: int) -> None: ...
