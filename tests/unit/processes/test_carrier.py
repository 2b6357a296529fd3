"""What the carrier puts first. The rest of it is tested through the loop, and by the simulation."""

from __future__ import annotations

import pytest

from patterns.wire.engine import Send
from patterns.wire.records import Position, Record, RecordKind
from zbroker.core.effects import Append
from zbroker.processes.carrier import CROWD, STALL_US, Carrier


class Engine:
    def __init__(self):
        self.told, self.wants = [], []

    def __getattr__(self, name):
        return lambda *arguments: self.told.append((name, *arguments))

    def effects(self):
        wants, self.wants = self.wants, []
        return wants


def carrier_of(engine, **more):
    return Carrier(engine, None, lambda peer, frames: engine.told.append(("send", peer)), lambda effect: None, **more)


@pytest.mark.parametrize(("late_us", "is_heard"), [(STALL_US, False), (STALL_US + 1, True)])
def test_after_a_stall_what_waits_in_the_sockets_is_heard_before_anything_expires(late_us, is_heard):
    engine = Engine()

    def hear():
        engine.told.append(("heard",))
        return 10_000_000

    now = carrier_of(engine).expire(5_000, 5_000 + late_us, hear)
    expected = [("heard",), ("handle_timeout", 10_000_000)] if is_heard else [("handle_timeout", 5_000 + late_us)]
    assert engine.told == expected
    assert now == expected[-1][1]


def test_what_is_due_at_once_is_no_stall():
    engine = Engine()
    carrier_of(engine).expire(0, 5_000_000_000, lambda: engine.told.append(("heard",)))
    assert engine.told == [("handle_timeout", 5_000_000_000)]


def test_a_stall_is_one_too_when_something_was_due_at_once():
    engine = Engine()
    carrier = carrier_of(engine)
    carrier.carry_out(5_000_000)
    engine.told.clear()
    carrier.expire(0, 5_000_001 + STALL_US, lambda: engine.told.append(("heard",)) or 9_000_000)
    assert engine.told == [("heard",), ("handle_timeout", 9_000_000)]


def test_what_many_are_sent_is_shown_before_the_first_of_them_leaves():
    engine = Engine()
    engine.wants = [Send(0, b"%d" % number, [b"x"]) for number in range(CROWD)]
    carrier = carrier_of(engine, share=lambda messages: engine.told.append(("share", len(messages))))
    carrier.carry_out(0)
    told = [entry for entry in engine.told if entry[0] in ("share", "send")]
    assert told[0] == ("share", CROWD)
    assert len(told) == 1 + CROWD


class Distant:
    """A journal in another process that has just said that a record is durable."""

    durable_index, tidy_at, trouble, full, checkpoint_due = 1, None, "", False, False

    def __init__(self):
        self.commits = 0

    def hear(self, now):
        return [(1, Position(1, 4096, 100))]

    def append(self, record):
        return None

    def commit(self, now):
        self.commits += 1
        return 0


def test_confirms_leave_as_soon_as_the_journal_is_heard():
    engine, journal = Engine(), Distant()
    engine.wants = [Send(0, b"producer", [b"x"])]
    Carrier(engine, journal, lambda peer, frames: engine.told.append(("send", peer)), lambda effect: None).hear(
        journal, 5
    )
    assert [entry[0] for entry in engine.told[:3]] == ["placed", "persisted", "send"]


def test_an_idle_journal_is_given_what_was_appended_before_the_turn_ends_and_a_busy_one_is_not():
    engine, journal = Engine(), Distant()
    carrier = Carrier(engine, journal, lambda peer, frames: None, lambda effect: None)
    carrier.commit_early(5)
    assert journal.commits == 0
    carrier.do([Append(Record(2, RecordKind.APPEND, 1, 0, 1))], 5)
    carrier.commit_early(5)
    carrier.commit_early(5)
    assert journal.commits == 1
    carrier.do([Append(Record(3, RecordKind.APPEND, 1, 1, 1))], 5)
    carrier.commit_early(5)
    assert journal.commits == 1
    journal.durable_index = 2
    carrier.commit_early(5)
    assert journal.commits == 2
