"""A run ends at the first record that is not whole, not next, not chained, or void."""

import pytest

from patterns.wire.records import Position, Record, RecordKind
from zbroker.store.commit import Group, build_commit
from zbroker.store.record import build_body, crc32c, padded
from zbroker.store.run import CHAIN_UNKNOWN, Run, read_run
from zbroker.store.segment import SegmentHeader
from zbroker.store.window import Window
from zbroker.testing.disk import VirtualDisk

HEADER = SegmentHeader(b"u" * 16, 1, 1, 0, 1, 1, 0, 0, b"s" * 16, 64 << 10, 0, 1)
SALT_CRC = crc32c(HEADER.salt)
STEP = 192  # bytes from one of these records to the next


def disk_with(count: int) -> VirtualDisk:
    group = Group(1, 4096)
    for index in range(1, count + 1):
        payload = b"x" * 100
        group.entries.append((Record(index, RecordKind.OPS, payload=payload), *build_body(b"", payload)))
        group.end += padded(168)
    disk = VirtualDisk()
    handle = disk.open("/s", create=True)
    disk.fallocate(handle, 64 << 10)
    disk.pwritev(handle, build_commit(group, SALT_CRC, 1, 7, 0)[0], 4096)
    return disk


def run(disk: VirtualDisk, chain: int = 7, expected: int = 1, bound: int = 99) -> tuple[Run, list[int]]:
    seen: list[int] = []

    def visit(record: Record, position: Position) -> None:
        seen.append(record.index)

    start = Run(4096, chain, expected, 0, 0, None)
    return read_run(Window(disk, "/s", 64 << 10), HEADER, start, bound, visit), seen


def test_a_whole_commit_is_one_run_with_its_filler() -> None:
    result, seen = run(disk_with(3))
    assert seen == [1, 2, 3]
    assert (result.offset, result.expected, result.records, result.rotten) == (8192, 4, 3, None)


def test_a_void_record_ends_it() -> None:
    assert run(disk_with(3), bound=3)[1] == [1, 2]


def test_a_wrong_chain_ends_it_unless_the_record_before_is_unreadable() -> None:
    assert run(disk_with(3), chain=8)[1] == []
    assert run(disk_with(3), chain=CHAIN_UNKNOWN)[1] == [1, 2, 3]


def test_a_wrong_index_ends_it() -> None:
    assert run(disk_with(3), expected=2)[1] == []


@pytest.mark.parametrize(("at", "is_header_whole"), [(20, False), (100, True)])
def test_a_flipped_bit_ends_it_and_a_whole_header_is_handed_back(at: int, is_header_whole: bool) -> None:
    disk = disk_with(3)
    handle = disk.open("/s")
    byte = disk.pread(handle, 1, 4096 + STEP + at)
    disk.pwrite(handle, bytes([byte[0] ^ 1]), 4096 + STEP + at)
    result, seen = run(disk)
    assert seen == [1]
    assert (result.rotten is not None) == is_header_whole
