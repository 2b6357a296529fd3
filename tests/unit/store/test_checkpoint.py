"""When a checkpoint is due, what it waits for, which are kept, and what a failure leaves."""

import errno

import pytest

from zbroker.store.checkpoint import (
    CHECKPOINT_BYTES,
    CHECKPOINT_RECORDS,
    Anchor,
    Checkpoints,
    checkpoint_name,
    index_name,
    parse_checkpoint_name,
)
from zbroker.store.liveness import Liveness
from zbroker.store.segment import SegmentHeader
from zbroker.testing.disk import VirtualDisk


def header(number: int) -> SegmentHeader:
    return SegmentHeader(b"u" * 16, number, number, 0, 1, 10 * number, 0, 0, b"s" * 16, 1 << 16, 0, 1, crc=number)


HEADERS = {number: header(number) for number in (1, 2, 3)}


def made(disk: VirtualDisk) -> Checkpoints:
    return Checkpoints(disk, "/j", lambda: 7, Liveness())


def write(checkpoints: Checkpoints, first: int) -> None:
    checkpoints.begin(Anchor(first, 3, 4096, 3), HEADERS)
    checkpoints.put(b"index", 1, HEADERS[1])
    checkpoints.put(b"state", 0, None)
    checkpoints.put(b"rest", 3, HEADERS[3])
    checkpoints.end(first + 5)
    while checkpoints.is_writing:
        checkpoints.publish(HEADERS, [])


def test_names_say_the_index_and_others_are_none() -> None:
    assert parse_checkpoint_name(checkpoint_name(42)) == 42
    assert parse_checkpoint_name("checkpoint.tmp") is None
    assert parse_checkpoint_name("checkpoint-42") is None
    assert index_name(7) == "0000000007-0000.idx"


def test_it_is_due_after_so_many_bytes_or_records() -> None:
    checkpoints = made(VirtualDisk())
    checkpoints.count_from(100, 1000, 3)
    assert not checkpoints.is_due(100 + CHECKPOINT_RECORDS - 1, 1000 + CHECKPOINT_BYTES - 1)
    assert checkpoints.is_due(100 + CHECKPOINT_RECORDS, 1000)
    assert checkpoints.is_due(100, 1000 + CHECKPOINT_BYTES)
    checkpoints.begin(Anchor(100, 3, 4096, 3), HEADERS)
    assert not checkpoints.is_due(1 << 40, 1 << 40), "one is being written"


def test_it_is_due_after_so_many_segments_however_little_is_in_them() -> None:
    checkpoints = made(VirtualDisk())
    checkpoints.count_from(100, 1000, 3)
    assert not checkpoints.is_far_behind(10, 64 << 20)
    assert checkpoints.is_far_behind(11, 64 << 20)


def test_it_waits_for_what_it_may_reflect() -> None:
    checkpoints = made(VirtualDisk())
    checkpoints.begin(Anchor(10, 3, 4096, 3), HEADERS)
    assert not checkpoints.is_complete(99)
    checkpoints.end(20)
    assert not checkpoints.is_complete(19)
    assert checkpoints.is_complete(20)


def test_two_are_kept_and_all_is_durable_when_it_has_its_name() -> None:
    disk = VirtualDisk()
    checkpoints = made(disk)
    for first in (10, 20, 30):
        write(checkpoints, first)
        assert f"/j/{checkpoint_name(first)}" in disk.durable
    kept = sorted(path for path in disk.live if "checkpoint" in path)
    assert kept == [f"/j/{checkpoint_name(first)}" for first in (20, 30)]
    assert checkpoints.indexed == {1}
    assert checkpoints.newest is not None
    assert checkpoints.newest.segments == [(1, 10), (2, 20), (3, 30)]
    assert not checkpoints.is_writing


@pytest.mark.parametrize("call", ["open", "pwrite", "fsync", "rename"])
def test_what_fails_is_abandoned_and_the_older_one_stays(call: str) -> None:
    disk = VirtualDisk()
    checkpoints = made(disk)
    write(checkpoints, 10)
    disk.fail(call, errno.ENOSPC)
    with pytest.raises(OSError, match="space"):
        write(checkpoints, 20)
    checkpoints.abandon()
    assert not checkpoints.is_writing
    assert checkpoints.abandoned == 1
    assert checkpoints.newest is not None
    assert checkpoints.newest.first_index == 10
    assert f"/j/{checkpoint_name(20)}" not in disk.live
    write(checkpoints, 20)
    assert checkpoints.newest.first_index == 20
