"""The loop's order of things, with an engine that only remembers what it was told and a journal that only counts."""

from __future__ import annotations

import pytest
import zmq

from patterns.io import sockets, turn
from patterns.wire.engine import Send
from patterns.wire.records import Position, Record, RecordKind
from zbroker.core.effects import Append, Read
from zbroker.processes.guard import Guard
from zbroker.processes.loop import Loop
from zbroker.store.faults import JournalFailed, RecordDamaged


class Engine:
    def __init__(self):
        self.told, self.wants, self.is_drained = [], [], False

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
    full, durable_index, last, commits, failure = False, 0, 0, 0, None

    def append(self, record):
        self.last = record.index
        return Position(1, record.index, 10)

    def commit(self, now):
        self.commits += 1
        if self.failure:
            raise self.failure
        self.durable_index = self.last
        return self.last

    def read(self, position):
        if position.offset == 2:
            raise RecordDamaged.__new__(RecordDamaged)
        return Record(position.offset, RecordKind.APPEND)

    def next_timeout(self):
        return None

    def status(self):
        return {}


@pytest.fixture
def parts():
    context = zmq.Context()
    router = sockets.bare_router(context)
    sockets.bind(router, "inproc://loop")
    engine, journal = Engine(), Journal()
    yield engine, journal, Loop(engine, router, Guard(0), journal), context
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


def test_a_damaged_record_is_read_as_none(parts):
    engine, _, loop, _ = parts
    engine.wants = [Read(5, [Position(1, 1, 10), Position(1, 2, 10)])]
    loop.turn()
    ((token, records, _),) = engine.of("loaded")
    assert (token, [record and record.index for record in records]) == (5, [1, None])


def test_a_send_that_cannot_be_routed_is_a_disconnection(parts):
    engine, _, loop, _ = parts
    engine.wants = [Send(0, b"gone1", [b"x"]), Send(0, b"gone1", [b"y"])]
    loop.turn()
    assert [peer for _, peer, _ in engine.of("disconnected")] == [b"gone1"]


def test_a_full_journal_is_told_when_it_fills_and_when_there_is_room(parts):
    engine, journal, loop, _ = parts
    for journal.full in (True, True, False):
        engine.wants = appends(journal.last + 1)
        loop.turn()
    assert engine.of("storage") == [(True, False), (False, False)]


def test_what_arrives_reaches_the_engine_frame_by_frame(parts):
    engine, _, loop, context = parts
    dealer, _ = sockets.make_dealer(context, "inproc://loop")
    for number in range(5):
        turn.send(dealer, [b"ZB1I", b"%d" % number])
    while len(engine.of("receive")) < 5:
        loop.turn()
    assert [frames for _, _, frames, _ in engine.of("receive")] == [[b"ZB1I", b"%d" % number] for number in range(5)]
