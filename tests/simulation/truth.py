"""What the log must hold: every record ever written, which of them anybody was told of, and what damage may have taken.

Holds the invariants 1 to 4, 10 and 14 of the simulation. It sees records as the journal is given them and as an open shows
them, and asks the virtual disk what a power cut would leave; it believes no account of the store's.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from patterns.wire import codec
from patterns.wire.records import Damage, Move, Opened, Position, Record, RecordKind
from tests.simulation.burials import Burials
from tests.simulation.disks import BLOCK_BYTES, FaultyDisk
from tests.simulation.holdings import Holdings
from tests.simulation.violation import Violation, require
from zbroker.core.tail import DELAYS, Split, batch_of, stored_of
from zbroker.store.record import HEADER_BYTES
from zbroker.store.segment import parse_name, segment_name

FOLDER = "/journal"


class Entry:
    """A record as it was given to the journal."""

    __slots__ = ("is_exposed", "known_durable", "position", "record", "uids")

    def __init__(self, record: Record, position: Position, known_durable: int, uids: list[Any]) -> None:
        self.record = record
        self.position = position
        self.known_durable = known_durable  # what its header says was durable, or less
        self.uids = uids
        self.is_exposed = False  # durable, or shown by an open: it can never change again


class LogTruth:
    """The one log of a run, over all lives of its broker.

    Attributes:
        messages: (stream id, offset) -> the body's first field, for all that is exposed.
        holdings: streams and groups, likewise, and what is gone.
        damaged: indexes of records whose bytes a fault has destroyed.
        coverage: what recoveries met.
        is_damaged: a fault has ever destroyed a record that was exposed.
    """

    def __init__(self, disk: FaultyDisk) -> None:
        self._disk = disk
        disk.on_hit = self.hit
        self.entries: dict[int, Entry] = {}
        self.messages: dict[tuple[int, int], Any] = {}
        self.holdings = Holdings()
        self.damaged: set[int] = set()
        self.lost_offsets: dict[tuple[int, int], None] = {}
        self.coverage: Counter[str] = Counter()
        self.durable = 0
        self.last = 0
        self.is_damaged = False
        self._epochs: list[int] = []
        self._given: dict[int, Entry] = {}
        self._streams: dict[
            int, None
        ] = {}  # ids of all that ever held a message: damage may take a name, and it is given again
        self._stored: dict[tuple[int, int], int] = {}  # index of the record that a message is in
        self._told_ever: set[int] = set()
        self._hits: list[tuple[int, int, int, int]] = []  # since the last open, which writes records of its own
        self.reserved: dict[
            tuple[int, int], str
        ] = {}  # messages that were sent back for one group: others pass over them
        self.due_ms: dict[tuple[int, int], int] = {}  # of messages that were sent with a delay
        self.burials = Burials(self)
        self._header_hits: dict[
            tuple[int, int], set[str]
        ] = {}  # by segment and generation: which of its two header blocks
        self._sequences: dict[int, tuple[int, int]] = {}  # producer id -> (epoch, sequence) of its last batch

    # -- a life ---------------------------------------------------------------------------------------------------

    @property
    def lives(self) -> int:
        """How often the folder was opened."""
        return len(self._epochs)

    def appended(self, record: Record, position: Position) -> None:
        """The journal has taken a record."""
        require(record.index == self.last + 1, f"4: index {record.index} after {self.last}")
        self.last = record.index
        uids: list[Any] = []
        if record.kind == RecordKind.APPEND:
            uids = self._batch(record)
            self.burials.appended(record, uids)
            self._note_marks(record)
        elif record.kind == RecordKind.CATALOG:
            self._repeated(record)
        self.entries[record.index] = Entry(record, position, self.durable, uids)

    def _batch(self, record: Record) -> list[Any]:
        stored = stored_of(record)
        bodies = codec.decode(stored.codec, record.payload, record.count, None)
        uids = [body[0] if isinstance(body, list) else body for body in bodies]
        if not stored.producer:
            return uids  # the broker's own
        self._answer(stored.producer, stored.epoch, stored.sequence)
        return uids

    def _repeated(self, record: Record) -> None:
        """A batch of which nothing is stored has its answer as well, and keeps it."""
        match msgspec.msgpack.decode(record.payload):
            case ["repeated", int(producer), int(epoch), int(sequence), *_]:
                self._answer(producer, epoch, sequence)
                self.coverage["repeated"] += 1

    def _answer(self, producer: int, epoch: int, sequence: int) -> None:
        """Each batch has one, and an older one none any more."""
        before = self._sequences.get(producer, (0, 0))
        require(epoch >= before[0], f"10: producer {producer} stores in epoch {epoch} after {before[0]}")
        require(sequence > before[1], f"10: batch {sequence} of producer {producer} is stored after {before[1]}")
        self._sequences[producer] = (epoch, sequence)

    def _note_marks(self, record: Record) -> None:
        stored = stored_of(record)
        for offset in range(record.base_offset, record.base_offset + record.count):
            if stored.group is not None:
                self.reserved[record.stream_id, offset] = stored.group
            else:
                self.reserved.pop((record.stream_id, offset), None)
        delays = Split(batch_of(record)).columns.delays if stored.marks & DELAYS else [0] * record.count
        for place, delay in enumerate(delays):
            key = record.stream_id, record.base_offset + place
            if delay:
                self.due_ms[key] = stored.published_at + delay
            else:
                self.due_ms.pop(key, None)  # of one that was never durable

    def committed(self, durable: int) -> None:
        """The journal says that all up to here is on the disk; the disk is asked."""
        for index in range(self.durable + 1, durable + 1):
            entry = self.entries[index]
            place = entry.position
            path = f"{FOLDER}/{segment_name(place.segment)}"
            if index in self.damaged:
                self.is_damaged = True  # lost by the very sync that was to save it
            elif not self._disk.is_on_platter(path, place.offset, place.size):
                raise Violation(f"1: record {index} is called durable, and a power cut now would take it")
            self._expose(entry)
        self.durable = max(self.durable, durable)

    def _expose(self, entry: Entry) -> None:
        entry.is_exposed = True
        record = entry.record
        self.holdings.expose(record)
        for place, uid in enumerate(entry.uids):
            key = record.stream_id, record.base_offset + place
            self._stored[key] = record.index
            self._streams[record.stream_id] = None
            known = self.messages.setdefault(key, uid)
            require(known == uid, f"3: offset {key[1]} of stream {key[0]} held {known!r}, and now {uid!r}")
            require(
                key not in self.lost_offsets, f"3: offset {key[1]} of stream {key[0]} was told lost, and is used again"
            )

    # -- retention and compaction -----------------------------------------------------------------------------------

    def forgot(self, ranges: list[tuple[int, int, int]], is_settled: Callable[[str, str, int, int, int], bool]) -> None:
        """The broker has said that nobody wants these messages any more; groups that are older have settled them, on disk."""
        for stream, first, last in ranges:
            gone = self.holdings.forget(stream, first, last)
            if not self.is_damaged and stream not in self.holdings.deleted:
                for offset in gone:
                    key = stream, offset
                    stored, reserved = self._stored.get(key, 0), self.reserved.get(key)
                    self.holdings.judge(*key, stored, reserved, lambda *names: is_settled(*names, self.durable))

    def _is_forgotten(self, record: Record, offset: int) -> bool:
        return self.holdings.is_forgotten(record.stream_id, offset)

    def _may_vanish(self, record: Record) -> bool:
        """Operations are in checkpoints; of a batch nobody must want a message."""
        offsets = range(record.base_offset, record.base_offset + record.count)
        return record.kind != RecordKind.APPEND or all(self._is_forgotten(record, offset) for offset in offsets)

    def moved(self, moves: list[Move]) -> None:
        """Batches lie elsewhere; what is gone must be unwanted."""
        places = {
            (entry.record.stream_id, entry.record.base_offset): entry for entry in self.entries.values() if entry.uids
        }
        for move in moves:
            entry = places.get((move.stream_id, move.base_offset))
            if entry is None:
                continue
            if move.position is not None:
                entry.position = move.position
            else:
                require(
                    self._may_vanish(entry.record), f"2: batch {entry.record.index} is compacted away, and is wanted"
                )

    def _is_slice(self, whole: Record, found: Record) -> bool:
        """Whether it is the same batch without messages that nobody wants."""
        same = (found.kind, found.stream_id, found.base_offset, found.count)
        if whole.kind != RecordKind.APPEND or same != (whole.kind, whole.stream_id, whole.base_offset, whole.count):
            return False
        before, after = _bodies(whole), _bodies(found)
        return all(before[offset] == body for offset, body in after.items()) and all(
            self._is_forgotten(whole, offset) for offset in before.keys() - after.keys()
        )

    def _with_whole(self, log: list[tuple[Record, Position]], compacted: set[int]) -> None:
        """In the place of each slice, the batch that it was cut from."""
        for place, (record, position) in enumerate(log):
            entry = self.entries.get(record.index)
            if entry is not None and entry.record != record and position.segment in compacted:
                require(self._is_slice(entry.record, record), f"4: batch {record.index} is not what is left of it")
                log[place] = entry.record, position
                self.coverage["sliced"] += 1

    def _compact(self, shown: dict[int, tuple[Record, Position]], compacted: set[int]) -> None:
        for index in [index for index, entry in self.entries.items() if entry.position.segment in compacted]:
            entry = self.entries[index]
            if index not in shown and self._may_vanish(entry.record):
                self._given[index] = self.entries.pop(index)
                self.coverage["record_compacted_away"] += 1

    # -- damage ---------------------------------------------------------------------------------------------------

    def hit(self, path: str, start: int, end: int) -> None:
        """A fault destroyed these bytes of a file."""
        parsed = parse_name(path.rpartition("/")[2])
        if parsed is None:
            return
        self._hits.append((*parsed, start, end))
        inode = self._disk.live.get(path)
        ends = self._header_hits.setdefault(parsed, set())
        if start < BLOCK_BYTES:
            ends.add("first")
        if inode is not None and end > len(inode.cache) - BLOCK_BYTES:
            ends.add("last")
        is_unknown = len(ends) == 2  # without either header block nobody knows what the file is
        for index, entry in self.entries.items():
            is_there = (entry.position.segment, entry.position.generation) == parsed
            if (is_unknown and is_there) or _overlaps(entry.position, *parsed, start, end):
                self.damaged.add(index)
                self.is_damaged = self.is_damaged or entry.is_exposed

    def _evidence(self) -> int:
        """The highest index that what is left still says was durable; what was never synced may not be left."""
        return max(
            (
                entry.known_durable
                for index, entry in self.entries.items()
                if index not in self.damaged and (entry.is_exposed or self._has_header(entry))
            ),
            default=0,
        )

    def _has_header(self, entry: Entry) -> bool:
        """Whether its header came to the disk, to its last byte; FORMAT.md 3."""
        place, record = entry.position, entry.record
        header = self._disk.shown(f"{FOLDER}/{segment_name(place.segment)}", place.offset, HEADER_BYTES)
        return header[16:24] + header[44:] == struct.pack(
            ">QIQQ", record.index, record.count, record.stream_id, record.base_offset
        )

    # -- an open --------------------------------------------------------------------------------------------------

    def has(self, record: Record) -> bool:
        """Whether it is in the log, or was, and nobody wanted it any more."""
        found = self.entries.get(record.index) or self._given.get(record.index)
        return found is not None and found.record == record

    def given_back(self) -> list[tuple[Record, Position]]:
        """Records whose segments were unlinked, in order: checkpoints have what they said."""
        return [(entry.record, entry.position) for _, entry in sorted(self._given.items())]

    def opened(
        self,
        opened: Opened,
        log: list[tuple[Record, Position]],
        found: list[Damage],
        gone: Callable[[int], bool],
        compacted: set[int],
    ) -> None:
        """What a life begins with, against all that is known; `gone` are segments that were given back."""
        require(not self._epochs or opened.epoch > self._epochs[-1], f"3: epoch {opened.epoch} after {self._epochs}")
        self._epochs.append(opened.epoch)
        self._with_whole(log, compacted)
        shown = {record.index: (record, position) for record, position in log}
        require(list(shown) == sorted(shown) and len(shown) == len(log), "4: an open shows records out of order")
        self._give_back(shown, gone)
        self._compact(shown, compacted)
        told = self._told(opened, shown, found)
        self._judge_missing(opened, shown, told)
        self._adopt(opened, log)
        if opened.torn_bytes:
            self.coverage["torn_tail"] += 1
        for damage in opened.damage:
            self.coverage[f"damage_{damage.reason}".replace(" ", "_")] += 1

    def _give_back(self, shown: dict[int, tuple[Record, Position]], gone: Callable[[int], bool]) -> None:
        """A segment may go when nobody wants anything of it; a message is wanted as long as nothing deletes it."""
        for index in [index for index, entry in self.entries.items() if gone(entry.position.segment)]:
            if index in shown:
                continue
            entry = self._given[index] = self.entries.pop(index)
            require(self._may_vanish(entry.record), f"2: record {index} is wanted, and its segment is given back")
            self.coverage["record_given_back"] += 1

    def _told(self, opened: Opened, shown: dict[int, tuple[Record, Position]], found: list[Damage]) -> set[int]:
        """Indexes that the open says are lost; nothing else may be missing below its end."""
        told: set[int] = set()
        for damage in (*opened.damage, *found):  # what lies before a checkpoint is told when it is read
            told.update(range(damage.first_index, min(damage.last_index, self.last + 64) + 1))
            if any(number == damage.segment for number, *_ in self._hits):
                self.is_damaged = True  # a prepared segment that is not blank any more looks like one without header
            require(self.is_damaged or bool(self.damaged), f"2: damage is told of, and there was none: {damage}")
        self._told_ever |= told  # a hole may be forgotten when its whole segment is given back
        known = min(opened.next_index, self.last + 1)
        missing = [
            index
            for index in range(1, known)
            if index not in shown and index not in self._told_ever | self._given.keys()
        ]
        require(not missing, f"4: the log has holes that nobody tells of: {missing[:5]}")
        return told

    def _judge_missing(self, opened: Opened, shown: dict[int, tuple[Record, Position]], told: set[int]) -> None:
        evidence = self._evidence()
        first_beyond = min((index for index in self.damaged if index > evidence), default=None)
        for index, entry in self.entries.items():
            is_tail = first_beyond is not None and index >= first_beyond  # looks torn: FORMAT.md says so
            found = shown[index][0] if index in shown else None
            if found == entry.record:
                continue
            is_replaced = found is not None and found.kind == RecordKind.LOST and (is_tail or not entry.is_exposed)
            if found is not None and not is_replaced:
                raise Violation(f"4: record {index} was {entry.record}, an open shows {found}")
            if not entry.is_exposed:
                continue
            if index not in self.damaged and not is_tail:
                raise Violation(f"2: record {index} was durable and undamaged, and is gone; lost: {sorted(told)[:5]}")
            require(is_tail or index in told, f"2: record {index} is gone, and no LOST record says so")
            self.coverage["tail_looks_torn" if index not in told else "record_lost"] += 1

    def _adopt(self, opened: Opened, log: list[tuple[Record, Position]]) -> None:
        """The log is what the open has shown."""
        before, self.entries = self.entries, {}
        self._forget(before, {record.index for record, _ in log})
        self._sequences = {}
        ends: dict[int, int] = {}
        for record, position in log:
            known = before.get(record.index)
            require(
                known is not None or record.kind == RecordKind.LOST,
                f"4: an open shows record {record.index}, which nobody wrote",
            )
            uids: list[Any] = []
            if record.kind == RecordKind.APPEND:
                uids = self._batch(record)
                end = ends.get(record.stream_id, 0)
                require(
                    record.base_offset >= end, f"3: stream {record.stream_id} uses offset {record.base_offset} twice"
                )
                ends[record.stream_id] = record.base_offset + record.count
            elif record.kind == RecordKind.CATALOG:
                self._repeated(record)
            is_same = known is not None and known.record == record
            entry = Entry(record, position, known.known_durable if known and is_same else 0, uids)
            self.entries[record.index] = entry
            self._expose(entry)
            if not is_same and any(_overlaps(position, *hit) for hit in self._hits):
                self.damaged.add(record.index)
                self.is_damaged = True
        self._hits.clear()
        self.last = self.durable = opened.next_index - 1
        self.damaged &= self.entries.keys()

    def _forget(self, before: dict[int, Entry], kept: set[int]) -> None:
        """What is gone for good: told lost, its offsets are never used again; a tail that looked torn gives them back."""
        for index, entry in before.items():
            if index in kept or not entry.is_exposed:
                continue
            for place in range(len(entry.uids)):
                self.messages.pop((entry.record.stream_id, entry.record.base_offset + place), None)
            if entry.record.kind == RecordKind.CATALOG:
                self.holdings.lose(index)

    # -- clients --------------------------------------------------------------------------------------------------

    def confirmed(self, stream: str, offset: int, uid: Any) -> None:
        """A client was told that its message is durable at this offset."""
        if any(self.messages.get((id, offset)) == uid for id in self.holdings.ids.get(stream, ())):
            return  # of one that was deleted meanwhile, perhaps
        id = self.holdings.names.get(stream)
        if id is None:
            require(self.is_damaged, f"2: {stream} is confirmed, and no durable record names it")
            return
        found = self.messages.get((id, offset))
        if found is None:
            require(self.is_damaged, f"1: {stream}[{offset}] is confirmed, and is not durable")
        else:
            is_other = self.is_damaged and any(self.messages.get((id, offset)) == uid for id in self._streams)
            require(is_other, f"3: {stream}[{offset}] is confirmed as {uid!r}, the log holds {found!r}")

    def delivered(self, stream: str, offset: int, uid: Any) -> None:
        """A consumer was given a message, perhaps of a stream that was deleted meanwhile."""
        if any(self.messages.get((id, offset)) == uid for id in self.holdings.ids.get(stream, ())):
            return
        id = self.holdings.names.get(stream)
        found = None if id is None else self.messages.get((id, offset))
        require(found is None and self.is_damaged, f"3: {stream}[{offset}] came as {uid!r}, is {found!r}")


def _overlaps(place: Position, segment: int, generation: int, start: int, end: int) -> bool:
    """Of a file that is newer than what we know of, anything may be hit; until an open is through with the older one, of that too."""
    if place.segment != segment or place.generation > generation:
        return False
    return place.generation < generation or (place.offset < end and start < place.offset + place.size)


def _bodies(record: Record) -> dict[int, bytes]:
    batch = batch_of(record)
    return {offset: bytes(item) for offset, item in zip(batch.offsets(), Split(batch).items, strict=True)}
