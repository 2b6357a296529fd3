"""A journal of several segments, of which every second message is forgotten and two checkpoints have what else was in them."""

from random import Random

import msgspec
import pytest

from patterns.wire.records import Position, Record, RecordKind
from patterns.wire.settled import Range
from zbroker.store import checkpoint
from zbroker.store.disk import Disk
from zbroker.store.journal import FileJournal
from zbroker.store.reader import RecordReader
from zbroker.store.segment import parse_name, segment_name
from zbroker.testing.disk import VirtualDisk

FOLDER = "/j"
SEGMENT_BYTES = 128 << 10
FIRST = f"{FOLDER}/{segment_name(1)}"
COMPACTED = f"{FOLDER}/{segment_name(1, 1)}"


def slicer(record: Record, wanted: list[Range]) -> Record | None:
    """Batches here are a byte a message."""
    kept = b"".join(
        record.payload[first - record.base_offset : last + 1 - record.base_offset] for first, last in wanted
    )
    return msgspec.structs.replace(record, payload=kept)


class Halved:
    """Stream 7 in batches of one message, stream 8 in batches of 100, of which one is wanted, 9 of which nothing is."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: str = FOLDER, real: Disk | None = None) -> None:
        patch.setattr(checkpoint, "CHECKPOINT_RECORDS", 30)
        self.disk = VirtualDisk()
        self.any_disk = real or self.disk
        self.folder = folder
        self.now = 0
        self.places: dict[tuple[int, int], Position] = {}
        self.bodies: dict[tuple[int, int], bytes] = {}
        self.random = Random(1)
        self.open()

    def make(self) -> FileJournal:
        return FileJournal(
            self.any_disk,
            self.folder,
            segment_bytes=SEGMENT_BYTES,
            random_bytes=self.random.randbytes,
            wall_ms=lambda: 0,
            slicer=slicer,
        )

    def open(self) -> None:
        """The state of a checkpoint is nothing at all here, places come from the segments."""
        self.places = {}
        self.journal = self.make()
        self.opened = self.journal.open(self._visit, self)
        self.next = self.opened.next_index

    def restore(self, chunks: object) -> bool:
        return True

    def index(self, chunk: bytes) -> bool:
        return False

    def reindex(self, record: Record, position: Position) -> None:
        self.places[record.stream_id, record.base_offset] = position

    def _visit(self, record: Record, position: Position) -> None:
        if record.kind == RecordKind.APPEND:
            self.reindex(record, position)

    def append(self, stream: int, base: int, payload: bytes, count: int = 1) -> None:
        record = Record(self.next, RecordKind.APPEND, stream, base, count, b"c", payload)
        self.places[stream, base] = self.journal.append(record)
        self.bodies[stream, base] = payload
        self.next += 1

    def fill(self, rounds: int = 140) -> None:
        begin = max((base for stream, base in self.bodies if stream == 7), default=-1) + 1
        for at in range(begin, begin + rounds):
            self.append(7, at, self.random.randbytes(1_000))
            self.append(8, at * 100, self.random.randbytes(100), 100)
            self.append(9, at, bytes(300))
            self.journal.append(Record(self.next, RecordKind.OPS, payload=b"an operation"))
            self.next += 1
            self.journal.commit(self.now)
            if self.journal.checkpoint_due:
                self.checkpoint()

    def checkpoint(self) -> None:
        full, current = self.journal.begin_checkpoint()
        for segment in full:
            self.journal.put_checkpoint(b"", segment)
        self.journal.put_checkpoint(b"", 0)
        self.journal.put_checkpoint(b"", current)
        self.journal.end_checkpoint(self.next - 1)
        for _ in range(2):
            self.journal.handle_timeout(self.now)

    def forget(self) -> None:
        """Every second message of stream 7, all but one of each batch of stream 8, all of stream 9."""
        upto = max(base for stream, base in self.bodies if stream == 7)
        self.journal.forget((7, at, at) for at in range(1, upto + 1, 2))
        self.journal.forget((8, at * 100 + 1, at * 100 + 99) for at in range(upto + 1))
        self.journal.forget([(9, 0, upto)])

    def tidy(self, steps: int = 100_000) -> int:
        """Until nothing is left to do, or so many steps; returns how many were made."""
        for made in range(steps):
            due = self.journal.tidy_at
            if due is None:
                return made
            self.now = max(self.now, due)
            for move in self.journal.tidy(self.now):
                if move.position is None:
                    del self.places[move.stream_id, move.base_offset]
                else:
                    self.places[move.stream_id, move.base_offset] = move.position
        return steps

    def check(self) -> None:
        """Each message that is wanted is there."""
        reader = RecordReader(self.any_disk, self.folder)
        for (stream, base), body in self.bodies.items():
            if stream == 9 or (stream == 7 and base % 2):
                continue
            record = reader.read([self.places[stream, base]])[0]
            assert isinstance(record, Record), record
            assert (record.stream_id, record.base_offset) == (stream, base)
            assert record.payload in ((body,) if stream == 7 else (body, body[:1]))
        reader.close()

    @property
    def segments(self) -> list[tuple[int, int]]:
        """Number and generation of each file."""
        names = sorted(self.any_disk.listdir(self.folder))
        return [parsed for parsed in map(parse_name, names) if parsed is not None]

    @property
    def size(self) -> int:
        """Of all of them."""
        return sum(len(self.disk.content(f"{FOLDER}/{segment_name(*one)}")) for one in self.segments)
