"""The journal under power cuts, crashes, rot and a short-writing disk, by seed; a failing seed is printed.

One checker judges the clean journal and the planted defects alike: a checker that no defect trips proves nothing.
"""

import os
from random import Random

import pytest

from patterns.wire.records import Opened, Position, Record, RecordKind
from zbroker.store.faults import JournalFailed
from zbroker.store.journal import FileJournal
from zbroker.store.reader import RecordReader
from zbroker.store.recovery import LogScan
from zbroker.store.segment import segment_name
from zbroker.store.verify import verify_folder
from zbroker.store.writer import LogWriter
from zbroker.testing.disk import PowerCut, VirtualDisk

FOLDER = "/journal"
SEGMENT_BYTES = 64 << 10  # small: a run rolls often
SEEDS = 2000 if os.environ.get("ZBROKER_TEST_LONG") else 200
Log = list[tuple[Record, Position]]


class BrokenPromise(AssertionError):
    """What the checker found."""


class World:
    """A disk, a journal on it, and all that was ever promised."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.disk = VirtualDisk()
        self.disk.short_writes = Random(seed + 1) if self.random.random() < 0.5 else None
        self.confirmed = 0
        self.epochs: list[int] = []
        self.truth: dict[int, Record] = {}  # every value that was confirmed or shown by an open
        self.appended: dict[int, Record] = {}
        self.places: dict[int, Position] = {}
        self.now = 0
        self.open()

    def make(self) -> FileJournal:
        return FileJournal(
            self.disk,
            FOLDER,
            segment_bytes=SEGMENT_BYTES,
            random_bytes=self.random.randbytes,
            wall_ms=lambda: 0,
        )

    def open(self) -> Opened:
        log: Log = []
        self.journal = self.make()
        opened = self.journal.open(lambda record, position: log.append((record, position)))
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
        reader = RecordReader(self.disk, FOLDER)
        require(reader.read([position for _, position in log]) == [record for record, _ in log], "not what was shown")
        reader.close()
        for record, _ in log:
            expected = self.truth.get(record.index, self.appended.get(record.index))
            require(record == expected, f"index {record.index} holds another value")

    def act(self) -> None:
        for _ in range(self.random.randint(0, 12)):
            self.append()
        if self.random.random() < 0.7:
            durable = self.journal.commit(self.now)
            for index in range(self.confirmed + 1, durable + 1):
                self.truth[index] = self.appended[index]
            self.confirmed = durable
        self.now += self.random.choice([100, 6_000])
        due = self.journal.next_timeout()
        if due is not None and due <= self.now:
            self.journal.handle_timeout(self.now)

    def append(self) -> None:
        size = self.random.choice([0, 1, 60, 500, 3000, 7000])
        index = self.next_index
        kind = self.random.choice([RecordKind.APPEND, RecordKind.OPS, RecordKind.CATALOG])
        body = self.random.randbytes(size)
        record = Record(index, kind, index % 5, index * 7, 1 + size % 9, body[: size % 40], body)
        self.places[index] = self.journal.append(record)
        self.appended[index] = record
        self.next_index += 1

    def end_of_life(self) -> None:
        how = self.random.random()
        if how < 0.2:
            self.journal.close()
            self.confirmed = self.next_index - 1
            self.truth.update(self.appended)
        elif how < 0.4:
            self.disk.crash()
        else:
            self.disk.power_cut(self.random)

    def run(self, lives: int = 5) -> None:
        for _ in range(lives):
            try:
                if self.random.random() < 0.6:
                    self.disk.cut_after = self.random.randint(1, 40)
                for _ in range(self.random.randint(0, 8)):
                    self.act()
                self.end_of_life()
            except PowerCut:
                self.disk.power_cut(self.random) if self.random.random() < 0.8 else self.disk.crash()
            self.reopen()

    def reopen(self) -> None:
        """Often with another cut while it opens."""
        while True:
            try:
                if self.random.random() < 0.4:
                    self.disk.cut_after = self.random.randint(0, 12)
                self.open()
                self.disk.cut_after = None
                return
            except PowerCut:
                self.disk.power_cut(self.random)


def require(holds: bool, claim: str) -> None:
    if not holds:
        raise BrokenPromise(claim)


def run_seeds(seeds: range) -> int | None:
    """The first seed that breaks a promise."""
    for seed in seeds:
        try:
            World(seed).run()
        except (AssertionError, JournalFailed) as error:
            print(f"seed {seed}: {error}")
            return seed
    return None


def test_what_was_confirmed_survives_any_crash_and_the_log_stays_a_prefix() -> None:
    assert run_seeds(range(SEEDS)) is None


class ConfirmsBeforeSync(LogWriter):
    def _sync(self, handle: int) -> None:
        pass


class ForgetsTheVoidRule(LogScan):
    def _bound(self, place: int) -> int:
        return 1 << 63


class IgnoresShortWrites(LogWriter):
    def _write(self, group: object) -> None:
        disk = self._disk
        assert isinstance(disk, VirtualDisk)
        whole = disk.pwrite
        disk.pwrite = lambda handle, data, offset: len(data)  # type: ignore[method-assign]
        try:
            first = disk.pwritev

            def once(handle: int, parts: list[bytes], offset: int) -> int:
                whole(handle, b"".join(parts), offset)
                return sum(map(len, parts))

            disk.pwritev = once  # type: ignore[method-assign,assignment]
            super()._write(group)  # type: ignore[arg-type]
        finally:
            disk.pwrite = whole  # type: ignore[method-assign]
            disk.pwritev = first  # type: ignore[method-assign]


@pytest.mark.parametrize("defect", [ConfirmsBeforeSync, IgnoresShortWrites])
def test_the_checker_catches_a_journal_that(defect: type[LogWriter], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zbroker.store.journal.LogWriter", defect)
    assert run_seeds(range(60)) is not None


def test_the_checker_catches_a_scan_that_forgets_the_void_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zbroker.store.replay.LogScan", ForgetsTheVoidRule)
    assert run_seeds(range(SEEDS)) is not None


# -- damage ---------------------------------------------------------------------------------------


def grown(seed: int) -> World:
    """A journal of several segments and lives, all confirmed and closed."""
    world = World(seed)
    for _ in range(3):
        for _ in range(20):
            world.append()
        world.journal.commit(world.now)
        world.journal.close()
        world.truth.update(world.appended)
        world.confirmed = world.next_index - 1
        world.open()
    world.journal.close()
    return world


def reopened(world: World) -> tuple[Opened, dict[int, Record]]:
    log: dict[int, Record] = {}
    journal = world.make()
    opened = journal.open(lambda record, position: log.update({record.index: record}))
    journal.close()
    return opened, log


def lost_indexes(opened: Opened) -> set[int]:
    return {index for hole in opened.damage for index in range(hole.first_index, hole.last_index + 1)}


@pytest.mark.parametrize("size", [1, 4096])
def test_rot_in_the_middle_loses_exactly_the_records_it_touches(size: int) -> None:
    for seed in range(SEEDS // 4):
        world = grown(seed)
        victim = world.random.choice(sorted(world.places)[:-20])
        place = world.places[victim]
        at = place.offset + world.random.randrange(place.size)
        path = f"{FOLDER}/{segment_name(place.segment)}"
        before = world.disk.content(path)
        if size == 1:
            world.disk.flip_bit(path, at, world.random.randrange(8))
        else:
            at -= at % size
            world.disk.zero(path, at, size)
        now = world.disk.content(path)  # zeros over zeros are no rot
        touched = {
            index
            for index, other in world.places.items()
            if other.segment == place.segment and at < other.offset + other.size and other.offset < at + size
            if now[other.offset : other.offset + other.size] != before[other.offset : other.offset + other.size]
        }
        opened, log = reopened(world)
        lost = lost_indexes(opened)
        assert size > 1 or victim in lost, f"seed {seed}"
        assert lost == touched, f"seed {seed}"
        assert {index: log[index] for index in world.truth if index not in lost} == {
            index: record for index, record in world.truth.items() if index not in lost
        }, f"seed {seed}"
        again, log_again = reopened(world)
        assert (again.damage, log_again) == (opened.damage, log), f"seed {seed}"
        assert again.next_index == opened.next_index, f"seed {seed}"
        assert verify_folder(world.disk, FOLDER).is_whole == (not touched), f"seed {seed}"


def test_a_missing_segment_is_reported_and_the_rest_served() -> None:
    for seed in range(SEEDS // 8):
        world = grown(seed)
        numbers = sorted({position.segment for position in world.places.values()})
        gone = world.random.choice(numbers[:-1])
        world.disk.remove(f"{FOLDER}/{segment_name(gone)}")
        expected = {index for index, position in world.places.items() if position.segment == gone}
        opened, log = reopened(world)
        assert lost_indexes(opened) == expected, f"seed {seed}"
        assert log.keys() >= world.truth.keys() - expected
        assert reopened(world)[0].damage == opened.damage


def test_a_rotten_segment_header_is_read_from_its_copy() -> None:
    world = grown(1)
    path = f"{FOLDER}/{segment_name(1)}"
    world.disk.zero(path, 0, 4096)
    opened, log = reopened(world)
    assert not opened.damage
    assert log == world.truth


def test_a_record_planted_in_a_payload_is_never_taken() -> None:
    for seed in range(SEEDS // 8):
        world = World(seed)
        for _ in range(3):
            world.append()
        world.journal.commit(0)
        stolen = b""  # whole records of this very folder, as a producer that reads the disk would post them
        for index in range(1, 4):
            place = world.places[index]
            stolen += world.disk.content(f"{FOLDER}/{segment_name(place.segment)}")[
                place.offset : place.offset + (place.size + 63) // 64 * 64
            ]
        stolen = stolen[:6000]
        payload = b"".join(bytes(60 - 4 * shift) + stolen for shift in (0, 1))
        record = Record(world.next_index, RecordKind.APPEND, 1, 1, 1, b"", payload)
        place = world.journal.append(record)
        world.journal.append(Record(world.next_index + 1, RecordKind.OPS, payload=b"after"))
        world.journal.commit(1)
        world.journal.close()
        world.disk.flip_bit(f"{FOLDER}/{segment_name(place.segment)}", place.offset + 20)
        opened, log = reopened(world)
        assert lost_indexes(opened) == {record.index}, f"seed {seed}"
        assert log[record.index + 1].payload == b"after"
