"""Compaction under power cuts at every call: before = after, message by message; offsets are never reused; space is bounded."""

import copy
import os
from collections.abc import Iterable
from itertools import pairwise
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patterns.wire.records import Opened, Position, Record, RecordKind
from patterns.wire.settled import Range, Settled
from zbroker.store import checkpoint, compaction, compactor
from zbroker.store.journal import FileJournal
from zbroker.store.reader import RecordReader
from zbroker.store.record import padded
from zbroker.store.segment import parse_name
from zbroker.store.verify import verify_folder
from zbroker.testing.disk import PowerCut, VirtualDisk

FOLDER = "/j"
SEGMENT_BYTES = 32 << 10
EXAMPLES = 400 if os.environ.get("ZBROKER_TEST_LONG") else 60
STREAMS = (1, 2, 3)
Body = tuple[int, bytes]  # offset, body

encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode


def bodies_of(record: Record) -> dict[int, bytes]:
    return dict(decode(record.payload, type=list[Body]))


def slicer(record: Record, wanted: list[Range]) -> Record | None:
    kept = [(at, body) for at, body in bodies_of(record).items() if any(first <= at <= last for first, last in wanted)]
    return msgspec.structs.replace(record, payload=encode(kept)) if kept else None


class Engine:
    """The least that a broker knows: places of batches, next offsets, what is settled."""

    def __init__(self) -> None:
        self.places: dict[tuple[int, int], Position] = {}
        self.next = dict.fromkeys(STREAMS, 0)
        self.settled = {stream: Settled() for stream in STREAMS}
        self.operations = 0

    def visit(self, record: Record, position: Position) -> None:
        if record.kind == RecordKind.APPEND:
            if record.base_offset >= self.next[record.stream_id]:
                self.next[record.stream_id] = record.base_offset + record.count
            self.places[record.stream_id, record.base_offset] = position
        elif record.kind == RecordKind.OPS:
            self.operations = max(self.operations, record.index)
            self.settled[record.stream_id].add(*decode(record.payload))

    def restore(self, chunks: Iterable[bytes]) -> bool:
        for chunk in chunks:
            self.operations, ends, settled = decode(chunk)
            self.next = dict(ends)
            for stream, floor, bitmaps in settled:
                self.settled[stream] = Settled(floor)
                for number, bits in bitmaps:
                    self.settled[stream].restore(number, bits)
        return True

    def index(self, chunk: bytes) -> bool:
        self.places |= {(stream, base): Position(*place) for stream, base, place in decode(chunk)}
        return True

    def reindex(self, record: Record, position: Position) -> None:
        self.places[record.stream_id, record.base_offset] = position

    def cut(self, full: list[int], current: int) -> list[tuple[bytes, int]]:
        rows = [(*key, msgspec.structs.astuple(place)) for key, place in sorted(self.places.items())]
        chunks = [(encode([row for row in rows if row[2][0] == segment]), segment) for segment in full]
        settled = [
            (stream, known.floor, [(number, Settled.encode(bits)) for number, bits in known.bitmaps()])
            for stream, known in self.settled.items()
        ]
        chunks.append((encode((self.operations, list(self.next.items()), settled)), 0))
        return [*chunks, (encode([row for row in rows if row[2][0] >= current]), current)]


class World:
    """A journal, an engine on it, and every message that was confirmed."""

    def __init__(self, seed: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.random = Random(seed)
        self.segment_size = segment_bytes
        self.disk = VirtualDisk()
        self.disk.short_writes = Random(seed) if seed % 2 else None
        self.now = 0
        self.compacted = self.vanished = self.lives = 0
        self.confirmed: dict[tuple[int, int], bytes] = {}
        self.written: dict[tuple[int, int], bytes] = {}
        self.gone = {stream: Settled() for stream in STREAMS}  # durably settled: may be compacted away
        self.told: list[tuple[int, int, int, int]] = []  # index of the record; stream, first, last
        self.ends = dict.fromkeys(STREAMS, 0)
        self.open()

    # -- a life -------------------------------------------------------------------------------------------------------

    def make(self, disk: VirtualDisk) -> FileJournal:
        return FileJournal(
            disk,
            FOLDER,
            segment_bytes=self.segment_size,
            random_bytes=self.random.randbytes,
            wall_ms=lambda: 0,
            slicer=slicer,
        )

    def open(self) -> None:
        self.engine = Engine()
        self.journal = self.make(self.disk)
        opened = self.journal.open(self.engine.visit, self.engine)
        self.lives += 1
        self.judge(opened)
        self.next_index = opened.next_index
        self.written, self.told = {}, []
        self.ends = dict(self.engine.next)
        for stream, known in self.engine.settled.items():
            self.gone[stream] = copy.deepcopy(known)
            self.journal.forget([(stream, 0, known.floor - 1), *_ranges(stream, known)])

    def judge(self, opened: Opened) -> None:
        assert not opened.damage
        report = verify_folder(self.image(), FOLDER)
        assert report.is_whole, report
        assert report.next_index == opened.next_index
        for stream in STREAMS:
            assert self.engine.next[stream] >= 1 + max((at for id, at in self.confirmed if id == stream), default=-1)
        self.check_messages(self.disk)
        for key, body in self.messages(self.disk).items():
            assert (self.confirmed | self.written).get(key, body) == body, f"{key} holds another body"

    def image(self) -> VirtualDisk:
        image = copy.deepcopy(self.disk)
        image.cut_after = None
        image.crash()
        return image

    def messages(self, disk: VirtualDisk) -> dict[tuple[int, int], bytes]:
        reader = RecordReader(disk, FOLDER)
        found: dict[tuple[int, int], bytes] = {}
        for key, record in zip(self.engine.places, reader.read(list(self.engine.places.values())), strict=True):
            if isinstance(record, Record):
                assert (record.stream_id, record.base_offset) == key
                found |= {(key[0], at): body for at, body in bodies_of(record).items()}
        reader.close()
        return found

    def check_messages(self, disk: VirtualDisk) -> None:
        """Whatever is confirmed and not settled can be read where the engine says."""
        found = self.messages(disk)
        for (stream, at), body in self.confirmed.items():
            if at not in self.gone[stream]:
                assert found.get((stream, at)) == body, f"message {stream}[{at}] is gone"

    # -- what is done -------------------------------------------------------------------------------------------------

    def append(self) -> None:
        for _ in range(self.random.randint(1, 8)):
            stream, count = self.random.choice(STREAMS), self.random.choice([1, 1, 2, 5])
            base = self.ends[stream]
            bodies = [
                (base + place, self.random.randbytes(self.random.choice([10, 300, 900]))) for place in range(count)
            ]
            record = Record(self.next_index, RecordKind.APPEND, stream, base, count, b"c", encode(bodies))
            self.put(record)
            self.ends[stream] += count
            self.written |= {(stream, at): body for at, body in bodies}
        self.commit()

    def put(self, record: Record) -> None:
        self.engine.visit(record, self.journal.append(record))
        self.next_index += 1

    def commit(self) -> None:
        if self.random.random() < 0.8:
            durable = self.journal.commit(self.now)
            assert durable == self.next_index - 1
            self.confirmed |= self.written
            self.written = {}
            told, self.told = self.told, []
            for _, stream, first, last in told:
                self.gone[stream].add(first, last)
            self.journal.forget(settle[1:] for settle in told)
        self.pass_time(self.random.choice([100, 6_000, 2_000_000]))

    def pass_time(self, us: int) -> None:
        self.now += us
        due = self.journal.next_timeout()
        if due is not None and due <= self.now:
            self.journal.handle_timeout(self.now)

    def settle(self) -> None:
        """Every second message, a stretch, or a single one, of those that are confirmed."""
        stream = self.random.choice(STREAMS)
        end = 1 + max((at for id, at in self.confirmed if id == stream), default=-1)
        if end:
            first = self.random.randrange(end)
            step, length = self.random.choice([(1, 40), (2, 40), (2, 200), (1, 1)])
            for at in range(first, min(end, first + length), step):
                last = min(end - 1, at + length) if step == 1 else at
                self.put(Record(self.next_index, RecordKind.OPS, stream, payload=encode((at, last))))
                self.told.append((self.next_index - 1, stream, at, last))
                if step == 1:
                    break
        self.commit()

    def checkpoint(self) -> None:
        self.commit()
        if not self.journal.checkpoint_due:
            return
        for piece in self.engine.cut(*self.journal.begin_checkpoint()):
            self.journal.put_checkpoint(*piece)
        self.journal.end_checkpoint(self.next_index - 1)
        self.journal.commit(self.now)
        for _ in range(2):
            self.pass_time(10)

    def tidy(self, steps: int = 12) -> None:
        for _ in range(steps):
            due = self.journal.tidy_at
            if due is None:
                return
            self.now = max(self.now, due)
            for move in self.journal.tidy(self.now):
                key = move.stream_id, move.base_offset
                if move.position is None:
                    self.vanished += self.engine.places.pop(key, None) is not None
                else:
                    self.engine.places[key] = move.position
        self.compacted = max(self.compacted, self.journal.status()["segments_compacted"])  # type: ignore[call-overload]

    def cut(self) -> None:
        """The plug is pulled in the midst of what comes next."""
        self.disk.cut_after = self.random.randint(0, 25)

    def restart(self) -> None:
        how = self.random.random()
        self.disk.cut_after = None
        if how < 0.3:
            self.journal.close()
        self.disk.power_cut(self.random) if how > 0.6 else self.disk.crash()
        self.reopen()

    def reopen(self) -> None:
        while True:
            try:
                self.disk.cut_after = self.random.randint(0, 15) if self.random.random() < 0.3 else None
                self.open()
                self.disk.cut_after = None
                return
            except PowerCut:
                self.disk.power_cut(self.random)

    def run(self, actions: list[str]) -> None:
        for action in actions:
            try:
                getattr(self, action)()
            except PowerCut:
                self.disk.power_cut(self.random)
                self.reopen()
        self.disk.cut_after = None
        self.check_messages(self.disk)
        self.restart()

    # -- space --------------------------------------------------------------------------------------------------------

    def segment_bytes(self) -> int:
        return sum(len(inode.cache) for path, inode in self.disk.live.items() if parse_name(path[len(FOLDER) + 1 :]))

    def live_bytes(self) -> int:
        """Of records, as far as their messages are wanted."""
        live = 0.0
        wanted = {key for key in self.confirmed if key[1] not in self.gone[key[0]]}
        reader = RecordReader(self.disk, FOLDER)
        for (stream, _), place in self.engine.places.items():
            record = reader.read([place])[0]
            if isinstance(record, Record):
                stored = bodies_of(record)
                live += padded(place.size) * sum((stream, at) in wanted for at in stored) / len(stored)
        reader.close()
        return int(live)


def _ranges(stream: int, known: Settled) -> Iterable[tuple[int, int, int]]:
    last = known.floor + 10_000
    gaps = [*known.missing(known.floor, last), (last + 1, last + 1)]
    return ((stream, gap[1] + 1, after[0] - 1) for gap, after in pairwise(gaps))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "CHECKPOINT_RECORDS", 25)
    monkeypatch.setattr(compactor, "STEP_BYTES", 20 << 10)
    monkeypatch.setattr(compactor, "MOVES_A_STEP", 5)
    monkeypatch.setattr(compaction, "FLUSH_BYTES", 2 << 10)
    monkeypatch.setattr(compaction, "SYNC_BYTES", 6 << 10)


ACTIONS = st.sampled_from(["append"] * 6 + ["settle"] * 5 + ["checkpoint"] * 4 + ["tidy"] * 6 + ["restart"] + ["cut"])


@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, 1 << 32), actions=st.lists(ACTIONS, min_size=10, max_size=120))
def test_whatever_is_done_and_interrupted_each_message_that_is_wanted_is_read(seed: int, actions: list[str]) -> None:
    World(seed).run(actions)


def test_by_seed_segments_are_compacted_and_records_vanish() -> None:
    compacted = vanished = 0
    for seed in range(EXAMPLES // 20):
        world = World(seed)
        random = Random(seed)
        for _ in range(20):
            world.run(random.choices(["append", "settle", "checkpoint", "tidy", "cut"], [6, 5, 4, 8, 0.3], k=24))
        compacted, vanished = compacted + world.compacted, vanished + world.vanished
    assert compacted >= EXAMPLES // 20
    assert vanished > EXAMPLES // 6


def test_segments_take_at_most_twice_what_is_wanted_and_a_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 128 << 10
    monkeypatch.setattr(checkpoint, "CHECKPOINT_RECORDS", 150)
    for seed in range(EXAMPLES // 30):
        world = World(seed, size)
        for _ in range(120):
            for action in ("append", "append", "append", "settle", "checkpoint", "tidy"):
                getattr(world, action)()
        for _ in range(4):  # so that all but the newest lies below the older checkpoint
            while not world.journal.checkpoint_due:
                world.append()
                world.tidy()
            world.checkpoint()
            world.tidy(10_000)
        assert world.compacted
        newest = 5 * size  # above the older checkpoint, and prepared
        assert world.segment_bytes() <= 2 * world.live_bytes() + newest, f"seed {seed}"
