"""What the truth takes for an answer."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from patterns.wire.records import Damage, Opened, Position, Record, RecordKind
from tests.simulation.disks import FaultyDisk
from tests.simulation.truth import Entry, LogTruth
from tests.simulation.violation import Violation


def test_damage_may_be_told_of_where_a_prepared_segment_was_hit_and_nowhere_else() -> None:
    truth = LogTruth(FaultyDisk(Random(1)))
    damage = Damage(1, 10, 2, 0, 640, [], "segment header")
    opened = Opened(epoch=1, next_index=11, records=0, bytes=0, damage=[damage], torn_bytes=0)
    truth.hit("/journal/0000000003-0000.seg", 5000, 5001)
    with pytest.raises(Violation, match="there was none"):
        truth._told(opened, {}, [])
    truth.hit("/journal/0000000002-0000.seg", 5000, 5001)
    assert truth._told(opened, {}, []) == set(range(1, 11))
    assert truth.is_damaged


def test_whoever_reads_passes_over_nothing_of_a_stream_that_never_was() -> None:
    truth = LogTruth(FaultyDisk(Random(1)))
    assert truth.holdings.are_forgotten("gone", 3, 2)
    assert not truth.holdings.are_forgotten("gone", 3, 3)


def test_what_a_stream_gave_up_is_known_when_damage_has_taken_its_name_which_a_checkpoint_keeps() -> None:
    truth = LogTruth(FaultyDisk(Random(1)))
    named = msgspec.msgpack.encode(["stream", "orders"])
    record = Record(index=2, kind=RecordKind.CATALOG, stream_id=0, base_offset=0, count=0, columns=b"", payload=named)
    entry = Entry(record, Position(1, 4096, 64), 0, [])
    truth._expose(entry)
    truth._forget({2: entry}, set())
    assert not truth.holdings.names
    truth.is_damaged = True
    truth.forgot([(2, 371, 386)], lambda *_: False)
    assert truth.holdings.are_forgotten("orders", 371, 386)
    assert not truth.holdings.are_forgotten("orders", 371, 387)


def test_whoever_reads_passes_over_what_a_broker_has_given_up_and_not_over_more() -> None:
    truth = LogTruth(FaultyDisk(Random(1)))
    truth.holdings.ids["orders"] = [7]
    truth.holdings.decided(7, 5)
    truth.holdings.decided(7, 3)  # another life, whose acks were not on disk
    assert truth.holdings.are_forgotten("orders", 0, 4)
    assert not truth.holdings.are_forgotten("orders", 0, 5)
    assert not truth.holdings.are_forgotten("others", 0, 4)


@pytest.mark.parametrize("is_left", [True, False])
def test_what_was_never_synced_says_what_was_durable_only_where_it_is_left(is_left: bool) -> None:
    disk = FaultyDisk(Random(1))
    truth = LogTruth(disk)
    record = Record(index=1, kind=RecordKind.OPS, stream_id=0, base_offset=0, count=0, columns=b"", payload=b"")
    truth.durable = 7  # as its header says
    truth.appended(record, Position(1, 4096, 64))
    handle = disk.open("/journal/0000000001-0000.seg", create=True)
    header = bytearray(64)
    header[16:24] = (1).to_bytes(8, "big")
    disk.pwrite(handle, bytes(header if is_left else header[:23]), 4096)
    assert truth._evidence() == (7 if is_left else 0)
