"""Reading back: each batch once, so many at a time, and found again where it was moved."""

from __future__ import annotations

import pytest

from patterns.wire.messages import Lost
from patterns.wire.records import Position
from tests.unit.core.durable import SECOND, Durable
from zbroker.core import readback
from zbroker.core.readback import MOVED_AGAIN_US, MOVED_TIMES_MAX


def _replaying(count: int = 3) -> Durable:
    """A later life, so that what was written must be read."""
    rig = Durable()
    producer = rig.producer()
    for number in range(count):
        producer.append(number, "x" * 500)
    rig.turn()
    return rig.crash()


def _index(rig: Durable, offset: int) -> int:
    return next(record.index for record in rig.records if record.count and record.base_offset == offset)


def test_what_lies_elsewhere_by_now_is_read_there_and_is_no_damage() -> None:
    rig = _replaying()
    rig.slow_disk = True
    rig.consumer(group="", mode="batches")
    rig.moved = {_index(rig, 2)}
    log = rig.streams._catalog.by_name["s"]
    before = log.position(1)
    log.move(log.base(1), Position(2, before.offset, before.size))  # news of it came while it was read
    rig.slow_disk = False
    rig.answer(rig.reads[0])
    rig.pass_time(0)
    assert [d.offset for d in rig.deliveries(b"c")] == [0, 2, 4]
    assert rig.take(b"c", Lost) == []


def test_what_is_gone_before_the_news_of_its_place_is_asked_again_until_it_comes() -> None:
    rig = _replaying()
    rig.moved = {_index(rig, 2)}
    rig.consumer(group="", mode="batches")
    assert [d.offset for d in rig.deliveries(b"c")] == [0]
    reads = len(rig.reads)
    rig.turn()
    assert len(rig.reads) == reads, "not at once, that would go round without end"
    for _ in range(10):
        rig.pass_time(MOVED_AGAIN_US)
    assert len(rig.reads) == reads + 10
    log = rig.streams._catalog.by_name["s"]
    log.move(log.base(1), Position(2, log.position(1).offset, log.position(1).size))
    rig.pass_time(MOVED_AGAIN_US)
    assert [d.offset for d in rig.deliveries(b"c")] == [2, 4]


def test_what_nobody_finds_for_half_a_minute_was_deleted_and_is_told_as_lost() -> None:
    rig = _replaying()
    rig.moved = {_index(rig, 2)}
    rig.consumer(group="", mode="batches")
    for _ in range(MOVED_TIMES_MAX):
        assert rig.take(b"c", Lost) == []
        rig.pass_time(MOVED_AGAIN_US)
    assert [(lost.first, lost.last) for lost in rig.take(b"c", Lost)] == [(2, 3)]
    assert [d.offset for d in rig.deliveries(b"c")] == [0, 4]


@pytest.mark.parametrize("offset", [0, 4])
def test_a_record_that_does_not_belong_where_it_was_found_is_damage_and_is_handed_to_nobody(offset: int) -> None:
    rig = _replaying()
    rig.slow_disk = True
    rig.consumer(group="", mode="batches")
    [read] = rig.reads
    records = {record.base_offset: record for record in rig.records if record.count}
    rig.streams.loaded(read.token, [records[0], records[offset], records[4]], rig.now)  # the disk has misdirected one
    rig.turn()
    assert [d.offset for d in rig.deliveries(b"c")] == [0, 4]
    assert [(lost.first, lost.last) for lost in rig.take(b"c", Lost)] == [(2, 3)]


def test_what_is_read_ahead_is_read_once_however_small_the_cache() -> None:
    rig = Durable()
    producer = rig.producer()
    for number in range(60):
        producer.append(number, "x" * 500)
    rig.turn()
    again = rig.crash(tail_bytes=40_000)  # of which 10,000 for what is read back
    again.slow_disk = True
    again.consumer(group="", mode="batches")
    for read in again.reads:  # grows as it is answered
        again.answer(read)
    assert [d.offset for d in again.deliveries(b"c")] == list(range(0, 120, 2))
    assert sum(len(read.positions) for read in again.reads) == 60
    assert len(again.reads) > 5


def test_many_who_replay_have_a_bounded_number_of_bytes_read_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readback, "READING_BYTES", 4_000)
    rig = Durable()
    producer = rig.producer()
    for number in range(8):
        for _ in range(3):
            producer.append("x" * 500, stream=f"s{number}")
    rig.turn()
    again = rig.crash()
    again.slow_disk = True
    for number in range(8):
        again.consumer(b"c%d" % number, stream=f"s{number}", group="", mode="batches")
    assert 1 < len(again.reads) < 5
    for read in again.reads:  # grows as others are answered
        again.answer(read)
    assert len(again.reads) == 8
    assert [len(again.deliveries(b"c%d" % number)) for number in range(8)] == [3] * 8


def test_what_a_group_has_settled_is_not_read_ahead_with_the_rest() -> None:
    rig = Durable()
    producer = rig.producer()
    for number in range(40):
        producer.append(number)
    rig.turn()
    rig.consumer(mode="batches", credit=100)
    for delivery in rig.deliveries(b"c"):
        if delivery.offset % 4:
            rig.settle(b"c", delivery.lease)
    rig.turn()
    rig = rig.crash()
    rig.consumer(mode="batches", credit=100)
    rig.pass_time(3 * SECOND)
    assert [delivery.offset for delivery in rig.deliveries(b"c")] == list(range(0, 40, 4))
    assert sum(len(read.positions) for read in rig.reads) == 10
    rig.consumer(b"d", group="other", mode="batches", credit=100)
    assert [delivery.offset for delivery in rig.deliveries(b"d")] == list(range(40))
