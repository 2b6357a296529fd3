"""Fairness and bounds of what leaves."""

from __future__ import annotations

import msgspec
import pytest

from patterns.wire.messages import Codec, Credit, Lost
from tests.unit.core.durable import Durable
from zbroker.core.deliveries import TURN_BYTES
from zbroker.core.tail import stored_of


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


@pytest.mark.parametrize("group", ["", "g"])
@pytest.mark.parametrize("spoil", [{"payload": b'["caf\xe9","b"]'}, {"payload": b"[1]"}, {"columns": b"\xc1"}])
def test_a_whole_record_whose_bytes_make_no_sense_is_told_as_lost_and_ends_nothing(
    spoil: dict[str, bytes], group: str
) -> None:
    """An import of an earlier version looked into no body."""
    rig = Durable()
    producer = rig.producer()
    for number in range(3):
        producer.append(number, "x", codec=Codec.JSON)
    rig.turn()
    at = next(record.index for record in rig.records if record.count and record.base_offset == 2) - 1
    record = rig.records[at]
    if "columns" in spoil:
        stored = stored_of(record)
        stored.columns = spoil["columns"]
        spoil = {"columns": msgspec.msgpack.encode(stored)}
    rig.records[at] = msgspec.structs.replace(record, **spoil)
    again = rig.crash()
    again.consumer(group=group, credit=1, mode="slices", codec=Codec.JSON)
    for credit in range(2, 8):  # room for one message, so batches must be cut
        again.credit(b"c", credit)
    assert [(lost.first, lost.last) for lost in again.take(b"c", Lost)] == [(2, 3)]
    assert sorted({offset for d in again.deliveries(b"c") for offset in d.offsets}) == [0, 1, 4, 5]
    assert again.sessions.counters["stored_unreadable"] == 1
    if group:
        assert again.group()["lost"] == 2
