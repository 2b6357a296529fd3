"""Fairness and bounds of what leaves."""

from __future__ import annotations

from patterns.wire.messages import Credit
from tests.unit.core.durable import Durable
from zbroker.core.deliveries import TURN_BYTES


def test_a_turn_ends_at_its_budget_and_goes_on_in_the_next() -> None:
    rig = Durable()
    producer = rig.producer()
    for _ in range(9):
        producer.append(b"x" * 1_000_000)
        rig.turn()
    rig.consumer(b"c", mode="batches", credit=0)
    rig.send(b"c", Credit(1_000, 1 << 30))
    rig.streams.turn(rig.now)
    rig._carry_out()
    assert len(rig.deliveries(b"c")) == TURN_BYTES // 1_000_000 + 1
    assert rig.streams.next_timeout() == 0
    rig.turn()
    assert len(rig.deliveries(b"c")) == 4


def test_feeds_take_turns_so_a_long_backlog_holds_up_nobody() -> None:
    rig = Durable()
    producer = rig.producer()
    for number in range(600):
        producer.append(number)
    producer.append("other", stream="t")
    rig.turn()
    rig.consumer(b"c", credit=0, mode="batches")
    rig.consumer(b"d", credit=0, mode="batches", stream="t")
    rig.send(b"c", Credit(1_000, 1 << 30))
    rig.send(b"d", Credit(1_000, 1 << 30))
    rig.streams.turn(rig.now)
    rig._carry_out()
    assert (len(rig.deliveries(b"c")), len(rig.deliveries(b"d"))) == (511, 1)
