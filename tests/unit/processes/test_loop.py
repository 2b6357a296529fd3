"""The loop's order of things, with an engine that only remembers what it was told and a journal that only counts."""

from __future__ import annotations

import pytest
import zmq

from patterns.io import sockets, turn
from patterns.io.guard import Guard
from patterns.wire.engine import Send
from patterns.wire.records import Position, Record, RecordKind
from zbroker.core.effects import MOVED, Append, Read
from zbroker.processes.logbook import Logbook
from zbroker.processes.loop import Loop
from zbroker.processes.plain import PlainPorts
from zbroker.store.faults import JournalFailed, JournalFull, RecordDamaged, RecordMoved, RecordUnreadable
from zbroker.testing.reads import ImmediateReads


class Engine:
    def __init__(self):
        self.told, self.wants, self.is_drained, self.has_events = [], [], False, False

    def __getattr__(self, name):
        return lambda *arguments, **more: self.told.append((name, *arguments, *more.values()))

    def turn(self, now):
        pass

    def next_timeout(self):
        return 0  # always due, so that a turn never waits

    def handle_timeout(self, now):
        pass

    def effects(self):
        wants, self.wants = self.wants, []
        return wants

    def of(self, name):
        return [entry[1:] for entry in self.told if entry[0] == name]


class Journal:
    tidy_at = None

    full, durable_index, last, commits, failure, room = False, 0, 0, 0, None, 1_000
    checkpoint_due = False

    def append(self, record):
        if record.index > self.room:
            self.full = True
            raise JournalFull("data", 10, "no space left on device")
        assert record.index == self.last + 1 or not self.last
        self.last = record.index
        return Position(1, record.index, 10)

    def commit(self, now):
        self.commits += 1
        if self.failure:
            raise self.failure
        self.durable_index = self.last
        return self.last

    def next_timeout(self):
        return 0 if self.full else None

    def handle_timeout(self, now):
        self.full = self.last >= self.room

    def status(self):
        return {}


class Reader:
    def __init__(self):
        self.failure = None

    def status(self):
        return {"records": 1}

    def read(self, positions):
        if self.failure:
            return [self.failure] * len(positions)
        damaged, moved = RecordDamaged("data", 1, 2, "the body's CRC is wrong"), RecordMoved("data", 1)
        return [{2: damaged, 3: moved}.get(at.offset, Record(at.offset, RecordKind.APPEND)) for at in positions]


@pytest.fixture
def reader():
    return Reader()


@pytest.fixture
def parts(reader):
    context = zmq.Context()
    router = sockets.bare_router(context)
    sockets.bind(router, "inproc://loop")
    engine, journal = Engine(), Journal()
    logbook = Logbook("text", "info", None, lambda: 0, lambda: 0)
    guard = Guard(0)
    loop = Loop(engine, router, guard, journal, logbook, PlainPorts(context, guard), reads=ImmediateReads(reader))
    yield engine, journal, loop, context
    logbook.close()
    context.destroy(linger=0)


def appends(*indexes):
    return [Append(Record(index, RecordKind.APPEND)) for index in indexes]


def test_all_appends_of_a_turn_are_one_commit_and_persisted_once(parts):
    engine, journal, loop, _ = parts
    engine.wants = appends(1, 2, 3)
    loop.turn()
    assert journal.commits == 1
    assert [index for index, _ in engine.of("placed")] == [1, 2, 3]
    assert [index for index, _ in engine.of("persisted")] == [3]


def test_a_failed_journal_is_told_once_and_the_loop_goes_on(parts):
    engine, journal, loop, _ = parts
    journal.failure = JournalFailed("folder", "EIO")
    engine.wants = appends(1)
    loop.turn()
    engine.wants = appends(2)
    loop.turn()
    assert engine.of("storage") == [(False, True)]
    assert (journal.commits, journal.last, engine.of("persisted")) == (1, 1, [])


def test_a_damaged_record_is_read_as_none_and_one_whose_file_is_gone_as_moved(parts):
    engine, _, loop, _ = parts
    engine.wants = [Read(5, [Position(1, at, 10) for at in (1, 2, 3)])]
    loop.turn()
    ((token, records, _),) = engine.of("loaded")
    assert (token, records) == (5, [Record(1, RecordKind.APPEND), None, MOVED])
    assert "not whole any more: 1; record at byte 2 of segment 1" in str(engine.of("warn"))


def test_a_record_that_no_file_can_be_opened_for_is_not_lost_but_asked_again(parts, reader):
    engine, _, loop, _ = parts
    reader.failure = RecordUnreadable("data", 1, "too many open files")
    engine.wants = [Read(5, [Position(1, 1, 10)])]
    loop.turn()
    assert engine.of("loaded") == []
    assert "too many open files" in str(engine.of("warn"))
    loop.turn()
    reader.failure = None
    loop._inform(10**12)
    loop.turn()
    assert engine.of("loaded")[0][:2] == (5, [Record(1, RecordKind.APPEND)])


def test_what_the_journal_warns_of_is_told(parts):
    engine, journal, loop, _ = parts
    journal.status = lambda: {"warnings": ["cut short"]}
    loop._inform(10**12)
    assert ("journal: cut short", "cut short") in engine.of("warn")


def test_a_guard_that_has_died_is_told(parts):
    engine, _, loop, _ = parts
    loop._inform(10**12)  # this one was never started
    assert "guard" in [key for key, _ in engine.of("warn")]


def test_a_send_that_cannot_be_routed_is_a_disconnection(parts):
    engine, _, loop, _ = parts
    engine.wants = [Send(0, b"gone1", [b"x"]), Send(0, b"gone1", [b"y"])]
    loop.turn()
    assert [peer for _, peer, _ in engine.of("disconnected")] == [b"gone1"]


def test_a_full_journal_is_told_when_it_fills_and_when_there_is_room(parts):
    engine, journal, loop, _ = parts
    for journal.room, index in ((1, 1), (1, 2), (1_000, 3)):
        engine.wants = appends(index)
        loop.turn()
    assert engine.of("storage") == [(True, False), (False, False)]


def test_what_the_journal_has_no_room_for_is_held_and_written_in_order_when_there_is_room(parts):
    engine, journal, loop, _ = parts
    journal.room = 1
    engine.wants = appends(1, 2, 3)
    loop.turn()
    engine.wants = appends(4)
    loop.turn()
    assert engine.of("persisted") == [(1, engine.of("persisted")[0][1])]
    assert engine.of("storage") == [(True, False)]  # full, not failed
    journal.room = 1_000
    loop.turn()
    loop.turn()
    engine.wants = appends(5)
    loop.turn()
    assert [index for index, _ in engine.of("placed")] == [1, 2, 3, 4, 5]
    assert journal.durable_index == 5
    assert engine.of("storage")[-1] == (False, False)


def test_what_arrives_reaches_the_engine_frame_by_frame(parts):
    engine, _, loop, context = parts
    dealer, _ = sockets.make_dealer(context, "inproc://loop")
    for number in range(5):
        turn.send(dealer, [b"ZB1I", b"%d" % number])
    while len(engine.of("receive")) < 5:
        loop.turn()
    assert [frames for _, _, frames, _ in engine.of("receive")] == [[b"ZB1I", b"%d" % number] for number in range(5)]
