"""Looking ahead in a segment, over damage and unreadable blocks."""

import errno

import pytest

from patterns.wire.records import Record, RecordKind
from zbroker.store.record import build_body, build_header, crc32c
from zbroker.store.segment import SegmentHeader
from zbroker.store.window import Window, find_header
from zbroker.testing.disk import VirtualDisk

HEADER = SegmentHeader(b"u" * 16, 1, 1, 0, 1, 1, 0, 0, b"s" * 16, 64 << 10, 0, 1)


def disk_with(at: int, index: int, salt: bytes = HEADER.salt) -> VirtualDisk:
    disk = VirtualDisk()
    handle = disk.open("/s", create=True)
    disk.fallocate(handle, 64 << 10)
    prefix, body_crc = build_body(b"", b"body")
    record = Record(index, RecordKind.OPS, payload=b"body")
    header, _ = build_header(crc32c(salt), body_crc, 8, 0, 1, 0, record)
    disk.pwrite(handle, header + prefix + b"body", at)
    return disk


def look(disk: VirtualDisk, least: int, below: int) -> int | None:
    window = Window(disk, "/s", 64 << 10)
    found = find_header(window, 4096, HEADER, least, below)
    window.close()
    return None if found is None else found[0]


def test_the_next_whole_header_is_found_over_zeros() -> None:
    assert look(disk_with(40_000, 5), 3, 9) == 40_000


@pytest.mark.parametrize(("least", "below"), [(6, 9), (3, 5)])
def test_an_index_out_of_range_is_passed_over(least: int, below: int) -> None:
    assert look(disk_with(40_000, 5), least, below) is None


def test_a_header_under_another_salt_or_off_the_grid_is_passed_over() -> None:
    assert look(disk_with(40_000, 5, b"t" * 16), 3, 9) is None
    assert look(disk_with(40_004, 5), 3, 9) is None


def test_the_last_byte_that_is_not_zero_is_found_and_remembered() -> None:
    disk = disk_with(40_000, 5)
    window = Window(disk, "/s", 64 << 10)
    assert window.nonzero_end(4096, 60 << 10) == 40_000 + 72
    reads = disk.calls["pread"]
    assert window.nonzero_end(50_000, 60 << 10) == 50_000
    assert disk.calls["pread"] == reads


def test_an_unreadable_block_is_zeros_and_its_neighbours_are_served() -> None:
    disk = disk_with(40_000, 5)
    window = Window(disk, "/s", 64 << 10)
    disk.fail("pread", errno.EIO, 1)
    disk.fail("pread", errno.EIO, 3)  # the second block, read alone
    at = window.load(36_864, 8192)
    assert window.data[at + 40_000 - 36_864 :][:4] == b"ZBR1"


def test_any_other_error_is_raised() -> None:
    disk = disk_with(40_000, 5)
    window = Window(disk, "/s", 64 << 10)
    disk.fail("pread", errno.EACCES)
    with pytest.raises(PermissionError):
        window.load(0, 1)
