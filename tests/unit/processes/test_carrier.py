"""What the carrier puts first. The rest of it is tested through the loop, and by the simulation."""

from __future__ import annotations

import pytest

from patterns.wire.engine import Send
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
