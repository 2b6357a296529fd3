"""The writing end by itself: groups, segments, the witness, and what a disk without space does to it."""

from random import Random

import pytest

from patterns.wire.records import Record, RecordKind
from zbroker.store.faults import JournalFull
from zbroker.store.liveness import Liveness
from zbroker.store.segment import BLOCK_BYTES, SegmentHeader
from zbroker.store.writer import WITNESS_DELAY_US, LogWriter
from zbroker.testing.disk import VirtualDisk

SEGMENT_BYTES = 64 << 10


def begun(disk: VirtualDisk, headers: list[SegmentHeader], number: int = 1) -> LogWriter:
    writer = LogWriter(
        disk,
        "/j",
        segment_bytes=SEGMENT_BYTES,
        random_bytes=Random(1).randbytes,
        wall_ms=lambda: 0,
        liveness=Liveness(),
        begun=headers.append,
    )
    writer.begin(number, 7, b"u" * 16, 1)
    return writer


def batch(index: int, size: int = 3_000) -> Record:
    return Record(index, RecordKind.APPEND, 1, index, 1, b"", bytes(size))


def test_each_segment_is_told_of_before_its_first_record_and_carries_the_end_of_the_one_before() -> None:
    headers: list[SegmentHeader] = []
    writer = begun(VirtualDisk(), headers, 4)
    for index in range(1, 41):
        writer.append(batch(index))
        writer.commit(0)
    assert [header.number for header in headers] == list(range(4, 4 + len(headers)))
    assert len(headers) > 2
    assert all(header.durable_index == header.first_index - 1 for header in headers)
    assert {header.epoch for header in headers} == {7}


def test_what_is_taken_waits_for_a_commit() -> None:
    writer = begun(VirtualDisk(), [])
    position = writer.append(batch(1))
    assert (position.segment, position.offset) == (1, BLOCK_BYTES)
    assert writer.is_waiting
    assert writer.waiting_bytes >= position.size
    writer.commit(0)
    assert (writer.durable_index, writer.is_waiting, writer.waiting_bytes) == (1, False, 0)


def test_the_witness_comes_once_when_nothing_follows() -> None:
    disk = VirtualDisk()
    writer = begun(disk, [])
    assert writer.next_timeout() is None
    writer.append(batch(1))
    writer.commit(50)
    assert writer.next_timeout() == 50 + WITNESS_DELAY_US
    before, tail = disk.calls["fdatasync"], writer.tail
    writer.handle_timeout(50 + WITNESS_DELAY_US)
    assert disk.calls["fdatasync"] == before + 1
    assert writer.tail == tail + BLOCK_BYTES
    assert writer.next_timeout() is None


def test_without_space_for_the_next_segment_nothing_more_is_taken_and_what_was_is_durable() -> None:
    disk = VirtualDisk()
    disk.free_bytes = SEGMENT_BYTES
    writer = begun(disk, [])
    index = 0
    while writer.spares.full is None or writer.tail < SEGMENT_BYTES - BLOCK_BYTES:
        index += 1
        writer.append(batch(index))
        writer.commit(0)
    with pytest.raises(JournalFull):
        writer.append(batch(index + 1))
    writer.finish()  # nothing waits
    writer.close()
    assert writer.durable_index == index
