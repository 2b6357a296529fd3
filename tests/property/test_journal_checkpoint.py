"""Checkpoints under power cuts at every call, rot, lost and foreign files: never worse than the whole log read again."""

import copy
import errno
from collections.abc import Iterable
from random import Random
from typing import Any

import msgspec
import pytest

from patterns.wire.records import Opened, Position, Record, RecordKind
from tests.property.test_journal_recovery import FOLDER, SEEDS, Log, World, require
from zbroker.store import checkpoint
from zbroker.store.faults import RecordMoved
from zbroker.store.reader import RecordReader
from zbroker.store.verify import verify_folder
from zbroker.testing.disk import PowerCut, VirtualDisk

STATE = 0
Chunk = tuple[bytes, int]


class Engine:
    """Knows every operation by heart, and of each batch the place: the least that a broker must."""

    def __init__(self) -> None:
        self.known: dict[int, Record | Position] = {}
        self.restored = False
        self.dead = 0  # batches up to this index are wanted by nobody

    def restore(self, chunks: Iterable[bytes]) -> bool:
        for chunk in chunks:
            self.known |= {record.index: record for record in msgspec.msgpack.decode(chunk, type=list[Record])}
        mark = self.known.pop(0)
        assert isinstance(mark, Record)
        self.dead = mark.stream_id
        self.restored = True
        return True

    def forget(self, upto: int) -> None:
        self.dead = max(self.dead, upto)
        for index in [index for index, what in self.known.items() if index <= self.dead and isinstance(what, Position)]:
            del self.known[index]

    def index(self, chunk: bytes) -> bool:
        self.known |= dict(msgspec.msgpack.decode(chunk, type=list[tuple[int, Position]]))
        return True

    def reindex(self, record: Record, position: Position) -> None:
        self.known[record.index] = position

    def visit(self, record: Record, position: Position) -> None:
        require(record.index not in self.known, f"index {record.index} was shown twice")
        self.known[record.index] = record if record.kind != RecordKind.APPEND else position

    def cut(self, full: list[int], current: int, below: int) -> list[Chunk]:
        """In the order that the protocol asks for."""
        items = sorted((index, what) for index, what in self.known.items() if index < below)
        records = [what for _, what in items if isinstance(what, Record)]
        records.append(Record(0, RecordKind.OPS, stream_id=self.dead))
        places = [(index, what) for index, what in items if isinstance(what, Position)]
        chunks: list[Chunk] = []
        for segment in full:
            chunks += _chunks([one for one in places if one[1].segment == segment], segment) or [(b"\x90", segment)]
        chunks += _chunks(records, STATE) or [(b"\x90", STATE)]
        return chunks + _chunks([one for one in places if one[1].segment >= current], current)


def _chunks(items: list[Any], segment: int) -> list[Chunk]:
    return [(msgspec.msgpack.encode(items[at : at + 4]), segment) for at in range(0, len(items), 4)]


class Checkpointing(World):
    """A World whose journal is asked for checkpoints."""

    def __init__(self, seed: int) -> None:
        self.pieces: list[Chunk] = []
        self.taken = self.used = 0
        super().__init__(seed)

    def open(self) -> Opened:
        self.pieces = []
        self.engine = Engine()
        self.journal = self.make()
        opened = self.journal.open(self.engine.visit, self.engine)
        self.used += self.engine.restored
        log: Log = []
        self.engine.forget(self.engine.dead)
        reader = RecordReader(self.disk, FOLDER)
        for index in sorted(self.engine.known):
            what = self.engine.known[index]
            if isinstance(what, Position):
                log.append((_found(reader, what), what))
            else:
                log.append((what, self.places.get(index, Position(0, 0, 0)) if self.epochs else Position(0, 0, 0)))
        reader.close()
        self._judge(opened, log)
        self.next_index = opened.next_index
        self.confirmed = opened.next_index - 1
        self.appended = {}
        self.places = {record.index: position for record, position in log}
        self.truth = {record.index: record for record, _ in log}
        return opened

    def _judge(self, opened: Opened, log: Log) -> None:
        require([record.index for record, _ in log] == list(range(1, opened.next_index)), "holes in the log")
        require(opened.next_index > self.confirmed, "confirmed records are gone")
        require(not self.epochs or opened.epoch > self.epochs[-1], "an epoch came twice")
        require(not opened.damage, f"damage without rot: {opened.damage}")
        self.epochs.append(opened.epoch)
        for record, _ in log:
            expected = self.truth.get(record.index, self.appended.get(record.index))
            require(record == expected, f"index {record.index} holds another value")

    def append(self) -> None:
        super().append()
        index = self.next_index - 1
        self.engine.visit(self.appended[index], self.places[index])

    def forget(self, upto: int) -> None:
        """Everything up to this index is dead; also said again after each open, as the protocol wants it."""
        self.engine.forget(upto)
        self.journal.forget([(stream, 0, upto * 7 + 8) for stream in range(5)])

    def act(self) -> None:
        super().act()
        if self.journal.checkpoint_due:
            self.pieces = self.engine.cut(*self.journal.begin_checkpoint(), self.next_index)
            require(bool(self.pieces), "an empty checkpoint")
        for _ in range(self.random.randint(0, 6)):
            if self.pieces:
                self.journal.put_checkpoint(*self.pieces.pop(0))
                if not self.pieces:
                    self.journal.end_checkpoint(self.next_index - 1)
                    self.taken += 1
                    for _ in range(self.random.randint(0, 2)):  # at once, whether what it reflects is durable or not
                        self.journal.handle_timeout(self.now)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "CHECKPOINT_RECORDS", 15)


def test_whatever_the_plug_interrupts_the_log_is_the_same() -> None:
    taken = used = 0
    for seed in range(SEEDS // 3):
        world = Checkpointing(seed)
        try:
            world.run(lives=6)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        taken, used = taken + world.taken, used + world.used
    assert taken > SEEDS // 5
    assert used > SEEDS // 5


def grown(seed: int) -> Checkpointing:
    """Several segments, at least two checkpoints."""
    world = Checkpointing(seed)
    while len(checkpoints(world.disk)) < 2 or world.journal._writer.number < 6:
        world.act()
    world.journal.close()
    world.truth.update(world.appended)
    world.confirmed = world.next_index - 1
    return world


def due(world: Checkpointing) -> None:
    """Until a checkpoint is wanted, without beginning it."""
    while not world.journal.checkpoint_due:
        World.act(world)


def checkpoints(disk: VirtualDisk) -> list[str]:
    return sorted(path for path in disk.live if "checkpoint-" in path)


@pytest.mark.parametrize("what", ["newest", "both", "indexes", "draft"])
def test_a_rotten_or_lost_checkpoint_or_index_costs_time_and_nothing_else(what: str) -> None:
    for seed in range(SEEDS // 10):
        world = grown(seed)
        victims = {
            "newest": checkpoints(world.disk)[-1:],
            "both": checkpoints(world.disk),
            "indexes": [path for path in world.disk.live if path.endswith(".idx")],
            "draft": [path for path in world.disk.live if path.endswith(".tmp")],
        }[what]
        for path in victims:
            size = len(world.disk.live[path].platter)
            if world.random.random() < 0.5 and size:
                world.disk.flip_bit(path, world.random.randrange(size), world.random.randrange(8))
            else:
                world.disk.remove(path)
        is_rotten = any(path in world.disk.live for path in victims) and what in ("newest", "both")
        assert verify_folder(world.disk, FOLDER).is_whole == (not is_rotten)
        world.open()
        world.journal.close()
        assert world.engine.restored or what == "both"


def test_power_cuts_at_each_call_of_a_checkpoint_leave_a_log_that_opens() -> None:
    """Each call that changes something, from the first chunk to the last unlink, in turn."""
    cuts = 0
    for after in range(60):
        world = Checkpointing(5)
        due(world)
        world.pieces = world.engine.cut(*world.journal.begin_checkpoint(), world.next_index)
        world.disk.cut_after = after
        try:
            for piece in world.pieces:
                world.journal.put_checkpoint(*piece)
            world.journal.end_checkpoint(world.next_index - 1)
            for _ in range(2):
                world.journal.handle_timeout(world.now)
            world.disk.cut_after = None
            world.disk.crash()
        except PowerCut:
            cuts += 1
            world.disk.power_cut(Random(after))
        world.open()
    assert cuts > 5


@pytest.mark.parametrize("call", ["pwrite", "fsync", "rename", "unlink", "fsync_dir", "open"])
def test_no_space_for_a_checkpoint_costs_nothing_but_the_checkpoint(call: str) -> None:
    world = Checkpointing(6)
    due(world)
    world.disk.fail(call, errno.ENOSPC)
    for piece in world.engine.cut(*world.journal.begin_checkpoint(), world.next_index):
        world.journal.put_checkpoint(*piece)
    world.journal.end_checkpoint(world.next_index - 1)
    for _ in range(2):
        world.journal.handle_timeout(world.now)
    world.disk.faults.clear()
    for _ in range(30):
        world.act()
    world.journal.close()
    world.truth.update(world.appended)
    world.open()


def test_a_segment_below_the_checkpoint_that_is_gone_is_reported_once_and_the_rest_served() -> None:
    for seed in range(SEEDS // 10):
        world = grown(seed)
        numbers = sorted({place.segment for place in world.places.values() if place.segment})
        first = msgspec.msgpack.decode(_meta(world.disk), type=checkpoint.Meta)
        gone = world.random.choice([number for number in numbers if number < first.number])
        path = next(path for path in world.disk.live if path.endswith(f"{gone:010d}-0000.seg"))
        world.disk.remove(path)
        for _ in range(2):
            engine = Engine()
            journal = world.make()
            opened = journal.open(engine.visit, engine)
            reader = RecordReader(world.disk, FOLDER)
            assert [hole.segment for hole in opened.damage] == [gone]
            for index, what in engine.known.items():
                if isinstance(what, Position) and what.segment == gone:
                    with pytest.raises(RecordMoved):
                        _found(reader, what)
                elif isinstance(what, Position):
                    assert _found(reader, what).index == index
            reader.close()
            journal.close()


def _found(reader: RecordReader, position: Position) -> Record:
    [found] = reader.read([position])
    if not isinstance(found, Record):
        raise found
    return found


def _meta(disk: VirtualDisk) -> bytes:
    from zbroker.store.chunks import META, read_chunks

    return next(body for tag, body in read_chunks(disk, checkpoints(disk)[-1]) if tag == META)


def test_the_newest_segments_deleted_whole_are_known_to_the_checkpoint() -> None:
    """FORMAT.md 8: without a checkpoint nothing that is left would know of them."""
    world = grown(3)
    meta = msgspec.msgpack.decode(_meta(world.disk), type=checkpoint.Meta)
    for path in list(world.disk.live):
        if path.endswith(".seg") and int(path.rpartition("/")[2][:10]) >= meta.number:
            world.disk.remove(path)
    engine = Engine()
    opened = world.make().open(engine.visit, engine)
    assert opened.damage
    assert opened.next_index > world.confirmed
    assert opened.epoch > max(world.epochs)


def test_a_checkpoint_of_another_folder_or_another_time_is_refused_and_told() -> None:
    world, other = grown(8), grown(9)
    foreign = other.disk.live[checkpoints(other.disk)[-1]]
    path = f"{FOLDER}/{checkpoint.checkpoint_name(10**6)}"
    world.disk.live[path] = world.disk.durable[path] = foreign
    world.open()
    assert any("belongs to another journal" in text for text in world.journal.status()["warnings"])  # type: ignore[attr-defined]
    assert world.engine.restored


class Forgetting(Checkpointing):
    """A World in which old messages die now and then."""

    def __init__(self, seed: int) -> None:
        self.kinds: dict[int, int] = {}
        self.fewest = 1 << 60
        super().__init__(seed)

    def open(self) -> Opened:
        opened = super().open()
        if self.engine.dead:
            self.forget(self.engine.dead)
        return opened

    def _judge(self, opened: Opened, log: Log) -> None:
        self.engine.forget(self.engine.dead)  # what a rescan showed of it
        alive = [(record, place) for record, place in log if record.index in self.engine.known]
        expected = [
            index
            for index in range(1, opened.next_index)
            if index > self.engine.dead or self.kinds[index] != RecordKind.APPEND
        ]
        require([record.index for record, _ in alive] == expected, "not what should be alive")
        require(opened.next_index > self.confirmed, "confirmed records are gone")
        require(not opened.damage, f"damage without rot: {opened.damage}")
        image = copy.deepcopy(self.disk)
        image.crash()  # the lock goes with its process
        require(verify_folder(image, FOLDER).is_whole, "verify sees damage without rot")
        self.epochs.append(opened.epoch)
        for record, _ in alive:
            require(record == self.truth.get(record.index, self.appended.get(record.index)), f"index {record.index}")

    def append(self) -> None:
        super().append()
        self.kinds[self.next_index - 1] = self.appended[self.next_index - 1].kind

    def act(self) -> None:
        super().act()
        if self.random.random() < 0.2 and self.confirmed > 10:
            self.forget(self.random.randint(1, self.confirmed - 5))
        self.fewest = min(self.fewest, len([path for path in self.disk.live if path.endswith(".seg")]))


def test_dead_segments_are_given_back_and_nothing_else_whatever_the_plug_interrupts() -> None:
    removed = 0
    for seed in range(SEEDS // 3):
        world = Forgetting(seed)
        try:
            world.run(lives=6)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        numbers = sorted(int(path.rpartition("/")[2][:10]) for path in world.disk.live if path.endswith(".seg"))
        removed += numbers[-1] - len(numbers)
    assert removed > SEEDS // 3


def _judges_the_dead_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    describe = checkpoint.Checkpoints._describe

    def late(self: checkpoint.Checkpoints, headers: Any, damage: Any) -> checkpoint.Meta:
        anchor = self._anchor
        assert anchor is not None
        self._dead = self._liveness.droppable(headers, anchor.number)
        return describe(self, headers, damage)

    monkeypatch.setattr(checkpoint.Checkpoints, "_describe", late)


def _does_not_wait_for_what_it_reflects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint.Checkpoints, "is_complete", lambda self, durable_index: self._last_index is not None)


def _unlinks_what_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zbroker.store.liveness.Liveness._is_wanted", lambda self, stream_id, first, last: first >= 50)


@pytest.mark.parametrize(
    "plant", [_judges_the_dead_at_the_end, _does_not_wait_for_what_it_reflects, _unlinks_what_is_alive]
)
def test_the_checker_catches_checkpoints_of_which_one(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)

    def run() -> None:
        for seed in range(SEEDS):
            Forgetting(seed).run(lives=6)

    with pytest.raises((AssertionError, RecordMoved)):
        run()
