"""What has a name and a number: streams and groups, and the records that tell of them. Also what CATALOG and OPS hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter, le
from typing import Annotated, Any, Final

import msgspec

from patterns.wire.configs import GroupConfig, StreamConfig, told
from patterns.wire.names import check_name
from patterns.wire.records import FIRST_INDEX, Record, RecordKind, decode_lost
from patterns.wire.settled import merged
from zbroker.core.dirty import Dirty
from zbroker.core.effects import Append
from zbroker.core.groups import Group
from zbroker.core.log import StreamLog
from zbroker.core.producers import Producer
from zbroker.core.tail import Stored

_RANGES_A_RECORD: Final = 8_192  # about 64 KiB: one turn's fragmented acks must not become one record of 100 MiB
_ITEMS: Final = {
    "attempts": 3,
    "delayed": 5,
}  # first and last offset; when they are due, and after which delay; how often they were delivered
_Number = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
_encode = msgspec.msgpack.Encoder().encode
Operations = list[tuple[str, int, int, list[list[_Number]] | _Number]]
_decode_operations = msgspec.msgpack.Decoder(Operations).decode


class Recorder:
    """Writes records, as effects; the only owner of the index.

    Attributes:
        next_index: of the next record.
        failed: the storage is; nothing more is written.
    """

    def __init__(self, effects: list[Any]) -> None:
        self._effects = effects
        self.next_index = FIRST_INDEX
        self.failed = False

    @property
    def last_index(self) -> int:
        """Of the last record written."""
        return self.next_index - 1

    def write(
        self,
        kind: RecordKind,
        payload: bytes,
        *,
        columns: bytes = b"",
        stream_id: int = 0,
        base_offset: int = 0,
        count: int = 0,
    ) -> int:
        """Append a record; returns its index."""
        index = self.next_index
        self.next_index += 1
        self._effects.append(Append(Record(index, int(kind), stream_id, base_offset, count, columns, payload)))
        return index


class Catalog:
    """Streams by name and id, and their groups. All are made by first use, but to read is to use nothing."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._awaited: dict[str, StreamLog] = {}  # what readers without a group wait for; bounded by their number
        self._readers: Counter[StreamLog] = Counter()  # of those
        self.by_name: dict[str, StreamLog] = {}
        self.by_id: dict[int, StreamLog] = {}
        self.groups: dict[tuple[int, int], Group] = {}  # by stream id and group id, as OPS name them
        self.deleted: dict[int, int] = {}  # ids of streams, and the offset after each one's last
        self.dooming: dict[Group, None] = {}  # those that have messages which are to be dead letters

    def stream(self, name: str) -> StreamLog:
        """The stream of that name, made if there is none. Raises BadName."""
        log = self.by_name.get(name)
        if log is None:
            check_name(name, "stream")
            log = self.add(self._recorder.write(RecordKind.CATALOG, _encode(["stream", name])), name)
        return log

    def awaited(self, name: str) -> StreamLog:
        """The stream of that name; if there is none, one without an id that only memory holds, until stream() makes it.

        What is got here is given back with given_up(). Raises BadName.
        """
        log = self.by_name.get(name) or self._awaited.get(name)
        if log is None:
            check_name(name, "stream")
            log = self._awaited[name] = StreamLog(0, name)
        if not log.id:
            self._readers[log] += 1
        return log

    def given_up(self, log: StreamLog) -> None:
        """A reader is gone; what nobody has made and nobody waits for any more is forgotten."""
        if log.id:
            return
        self._readers[log] -= 1
        if not self._readers[log]:
            del self._readers[log], self._awaited[log.name]

    def group(self, log: StreamLog, name: str, start: int) -> Group:
        """A new group of the stream, in the place of the one that had the name, as that was configured. Raises BadName."""
        check_name(name, "group")
        index = self._recorder.write(RecordKind.CATALOG, _encode(["group", log.id, name, start]), stream_id=log.id)
        group = self.add_group(log, index, name, start)
        group.opened(log.next_offset)
        return group

    def configured(self, log: StreamLog, config: StreamConfig) -> StreamLog:
        """The stream is to be like this from now on."""
        self._recorder.write(RecordKind.CATALOG, _encode(["configured", log.id, told(config)]), stream_id=log.id)
        log.config = config
        return log

    def group_configured(self, group: Group, config: GroupConfig) -> None:
        """The group is to be like this from now on."""
        entry = ["group_configured", group.stream_id, group.id, told(config)]
        self._recorder.write(RecordKind.CATALOG, _encode(entry), stream_id=group.stream_id)
        group.config = config

    def paused(self, group: Group, *, is_paused: bool) -> None:
        """The group is to be lent nothing, or to go on."""
        entry = ["paused", group.stream_id, group.id, is_paused]
        self._recorder.write(RecordKind.CATALOG, _encode(entry), stream_id=group.stream_id)
        group.is_paused = is_paused

    def purged(self, log: StreamLog, below: int) -> None:
        """Tell the journal that the stream has nothing below this offset any more."""
        self._recorder.write(RecordKind.CATALOG, _encode(["purged", log.id, below]), stream_id=log.id)

    def delete_stream(self, log: StreamLog) -> None:
        """It is not there any more, nor are its groups; its name is free."""
        self._recorder.write(RecordKind.CATALOG, _encode(["deleted", log.id, log.next_offset]), stream_id=log.id)
        self._remove(log.id, log.next_offset)

    def delete_group(self, group: Group) -> None:
        """It is not there any more; its name is free."""
        entry = ["group_deleted", group.stream_id, group.id]
        self._recorder.write(RecordKind.CATALOG, _encode(entry), stream_id=group.stream_id)
        self._remove_group(group)

    def _remove(self, id: int, end: int) -> None:
        self.deleted[id] = end
        log = self.by_id.pop(id, None)
        if log is None:
            return
        log.is_deleted = True
        if self.by_name.get(log.name) is log:
            del self.by_name[log.name]
        for group in list(log.groups.values()):
            self._remove_group(group)

    def _remove_group(self, group: Group) -> None:
        del self.groups[group.stream_id, group.id]
        log = self.by_id.get(group.stream_id)
        if log is not None and log.groups.get(group.name) is group:
            del log.groups[group.name]

    def producer(self, producer: Producer) -> None:
        """Tell the journal of an identity, before its first batch."""
        entry = ["producer", producer.id, producer.name, producer.nonce, producer.epoch]
        self._recorder.write(RecordKind.CATALOG, _encode(entry))
        producer.journaled = True

    def repeated(self, producer: Producer, sequence: int, offset: int, crc: int, repeats: list[tuple[int, int]]) -> int:
        """Tell the journal of a batch of which nothing is stored, all of its messages being known; the record's index.

        Else who sends it again after a restart, and later than their ids are remembered, has it stored.
        """
        entry = ["repeated", producer.id, producer.epoch, sequence, offset, crc, repeats]
        return self._recorder.write(RecordKind.CATALOG, _encode(entry))

    def producers_left(self, ids: list[int]) -> None:
        """Tell the journal of identities that will never come back."""
        self._recorder.write(RecordKind.CATALOG, _encode(["left", ids]))

    def recover(self, index: int, payload: bytes) -> list[Any] | None:
        """Apply a CATALOG record; what it says of producers is returned."""
        entry = msgspec.msgpack.decode(payload)
        match entry:
            case ["stream", str(name)]:
                if index not in self.by_id and index not in self.deleted:  # else a checkpoint told of it, with more
                    self.add(index, name)
            case ["producer" | "repeated" | "left", *_]:
                return list(entry)
            case [str(what), int(stream_id), *values] if stream_id not in self.deleted:
                self._recover_stream(index, what, stream_id, values)
            case _:
                pass  # of a later version, what it names is unknown here; or of a stream that is not there any more
        return None

    def _recover_stream(self, index: int, what: str, stream_id: int, values: list[Any]) -> None:
        match what, values:
            case "group", [str(name), int(start)]:
                if (stream_id, index) not in self.groups:
                    self.add_group(self.known(stream_id), index, name, start)
            case "configured", [dict(told)]:
                self.known(stream_id).config = msgspec.convert(told, StreamConfig)
            case (("group_configured" | "paused"), [int(group_id), value]):
                self._recover_group(self.groups.get((stream_id, group_id)), value)
            case "group_deleted", [int(group_id)]:
                group = self.groups.get((stream_id, group_id))
                if group is not None:
                    self._remove_group(group)
            case "purged", [int(below)]:
                self.known(stream_id).given_up.add(0, below - 1)
            case "deleted", [int(end)]:
                self._remove(stream_id, end)
            case _:
                pass

    def _recover_group(self, group: Group | None, value: object) -> None:
        if group is not None and isinstance(value, bool):
            group.is_paused = value
        elif group is not None:
            group.config = msgspec.convert(value, GroupConfig)

    def recover_operations(self, operations: Operations) -> None:
        """Apply what a record says of groups; those that are not there any more are passed over."""
        for what, stream_id, group_id, value in operations:
            group = self.groups.get((stream_id, group_id))
            if group is not None:
                group.recover(what, value)

    def recover_lost(self, record: Record) -> None:
        """Apply a LOST record: what damage took of the streams."""
        for damage in decode_lost(record.payload):
            for lost in damage.ranges:
                if lost.kind == RecordKind.APPEND and lost.count and lost.stream_id not in self.deleted:
                    log = self.known(lost.stream_id)
                    log.lose(lost.base_offset, lost.base_offset + lost.count - 1)
            if damage.lost_bytes:
                for log in self.by_id.values():
                    if log.last_index <= damage.last_index:
                        log.lose(log.next_offset, log.next_offset + damage.lost_bytes - 1)
                        log.last_index = record.index  # a later hole does not count this one again

    def known(self, stream_id: int) -> StreamLog:
        """The stream of an id that a record names; if damage took its name, it gets one that says so."""
        return self.by_id.get(stream_id) or self.add(stream_id, f"recovered-{stream_id}")

    def clear(self) -> None:
        """Forget everything; only before anything is written."""
        for table in (self.by_name, self.by_id, self.groups, self.deleted):
            table.clear()

    def add(self, id: int, name: str) -> StreamLog:
        """A stream that a record or a checkpoint names. Whoever has awaited it has it then."""
        log = self._awaited.pop(name, None) or StreamLog(id, name)
        self._readers.pop(log, None)
        log.id = log.last_index = id
        self.by_name[name] = self.by_id[id] = log
        return log

    def add_group(self, log: StreamLog, id: int, name: str, start: int) -> Group:
        """A group that a record or a checkpoint names. It takes the place of an older one of that name, which was reset."""
        group = Group(id, log.id, name, start, GroupConfig(log.name, name), self.dooming)
        before = log.groups.get(name)
        if before is not None and before.id > id:
            return group  # a checkpoint told of the younger one
        if before is not None:
            del self.groups[log.id, before.id]
            group.config, group.is_paused = before.config, before.is_paused
        log.groups[name] = self.groups[log.id, id] = group
        for first, last in log.lost:
            group.lose(first, last)
        return group


def encode_operations(groups: Iterable[Group], ahead: int = 0) -> list[bytes]:
    """OPS payloads of all that the journal does not know of these groups; they are clean afterwards.

    Absolute, so that applying one twice, or after a later one, changes nothing; so they may also be several
    records: a crash between them loses some operations, and what they settled is delivered again. "delivered" comes
    behind what says that something below it has not begun.

    Args:
        ahead: how far the broker's own clock is ahead of the engine's, in ms.
    """
    payloads: list[bytes] = []
    operations: list[list[object]] = []
    room = _RANGES_A_RECORD
    for operation, size in _operations(groups, ahead):
        if operations and size > room:
            payloads.append(_encode(operations))
            operations, room = [], _RANGES_A_RECORD
        operations.append(operation)
        room -= size
    if operations:
        payloads.append(_encode(operations))
    return payloads


def _operations(groups: Iterable[Group], ahead: int) -> Iterator[tuple[list[object], int]]:
    """Each operation, and how many ranges it has."""
    for group in groups:
        dirty, group.dirty = group.dirty, Dirty()
        for what, rows in _waits(dirty, ahead):
            yield from _parts(what, group, rows)
        if dirty.delivered:
            yield ["delivered", group.stream_id, group.id, group.cursor], 1
        for what in ("acked", "dead", "lost", "expired", "passed"):
            yield from _parts(what, group, merged(getattr(dirty, what)))


def _waits(dirty: Dirty, ahead: int) -> Iterator[tuple[str, Sequence[object]]]:
    """In order: of two that tell of the same message, the later one counts."""
    for size, rows in groupby(dirty.waits, len):
        if size == _ITEMS["attempts"]:
            yield "attempts", list(rows)
        else:
            yield (
                "delayed",
                [(first, last, max(due + ahead, 0), delay, tries) for first, last, tries, due, delay in rows],
            )


def _parts(what: str, group: Group, ranges: Sequence[object]) -> Iterator[tuple[list[object], int]]:
    for begin in range(0, len(ranges), _RANGES_A_RECORD):
        part = ranges[begin : begin + _RANGES_A_RECORD]
        yield [what, group.stream_id, group.id, part], len(part)


def decode_operations(payload: bytes) -> Operations:
    """(what, stream id, group id, ranges or offset) of an OPS payload.

    Raises:
        msgspec.MsgspecError, UnicodeError, RecursionError: these bytes are none, or hold a range that is none.
    """
    return _checked(_decode_operations(payload))


def operations_of(stored: Stored) -> Operations:
    """The same of those that hold if a batch does. Raises msgspec.MsgspecError."""
    return _checked(msgspec.convert(stored.operations or [], Operations))


def _checked(found: Operations) -> Operations:
    for what, _, _, value in found:
        items = _ITEMS.get(what, 2)
        if isinstance(value, list) and not (set(map(len, value)) <= {items} and all(map(le, *_ends(value)))):
            raise msgspec.ValidationError(f"operation {what[:16]!r} with a range that is none")
    return found


def _ends(ranges: list[list[int]]) -> tuple[Iterator[int], Iterator[int]]:
    return map(itemgetter(0), ranges), map(itemgetter(1), ranges)
