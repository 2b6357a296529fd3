"""Segment names, header blocks, and writing to the end whatever the disk takes at once."""

from random import Random

import msgspec
import pytest

from zbroker.store.segment import (
    BLOCK_BYTES,
    SegmentHeader,
    pack_header,
    parse_name,
    segment_name,
    unpack_header,
    write_whole,
)
from zbroker.testing.disk import VirtualDisk

HEADER = SegmentHeader(
    folder_uuid=b"u" * 16,
    number=5,
    last_covered=5,
    generation=0,
    epoch=3,
    first_index=100,
    durable_index=99,
    checkpoint_index=0,
    salt=b"s" * 16,
    segment_bytes=1 << 26,
    created_ms=1,
    oldest_needed=1,
)


def test_a_header_reads_back_as_it_was_packed() -> None:
    block, crc = pack_header(HEADER)
    found = unpack_header(block)
    assert found is not None
    assert (found.number, found.first_index, found.salt, found.crc) == (5, 100, b"s" * 16, crc)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("number", 1 << 31),
        ("epoch", 1 << 31),
        ("first_index", 1 << 53),
        ("durable_index", 1 << 53),
        ("last_covered", 1 << 31),
        ("previous", 1 << 31),
        ("checkpoint_index", 1 << 53),
        ("oldest_needed", 1 << 53),
    ],
)
def test_a_header_with_a_number_that_nobody_reaches_is_none(name: str, value: int) -> None:
    assert unpack_header(pack_header(msgspec.structs.replace(HEADER, **{name: value}))[0]) is None


def test_fields_lie_where_the_format_draws_them() -> None:
    block, _ = pack_header(HEADER)
    assert block[:8] == b"ZBSEGMT1"
    assert int.from_bytes(block[56:64], "big") == 100
    assert block[80:96] == b"s" * 16
    assert int.from_bytes(block[112:120], "big") == 1


def test_any_flipped_bit_of_the_block_makes_it_invalid() -> None:
    block, _ = pack_header(HEADER)
    for at in (*range(121), 2000, BLOCK_BYTES - 1):
        bad = bytearray(block)
        bad[at] ^= 1
        assert unpack_header(bytes(bad)) is None


@pytest.mark.parametrize("name", ["1-0000.seg", "0000000001-0000.seg.tmp", "LOCK", "000000000a-0000.seg"])
def test_other_names_are_no_segments(name: str) -> None:
    assert parse_name(name) is None


def test_a_name_reads_back() -> None:
    assert parse_name(segment_name(12, 3)) == (12, 3)


def test_a_disk_that_writes_short_gets_everything_in_the_end() -> None:
    disk = VirtualDisk()
    disk.short_writes = Random(1)
    handle = disk.open("/f", create=True)
    parts = [b"a" * 1000, b"b", b"c" * 5000]
    assert write_whole(disk, handle, parts, 10) == 6001
    assert disk.pread(handle, 6001, 10) == b"".join(parts)


def test_a_disk_that_takes_nothing_is_an_error_and_no_endless_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = VirtualDisk()
    monkeypatch.setattr(disk, "pwritev", lambda handle, parts, offset: 0)
    monkeypatch.setattr(disk, "pwrite", lambda handle, data, offset: 0)
    with pytest.raises(OSError, match="0 of 1 bytes"):
        write_whole(disk, disk.open("/f", create=True), [b"x"], 0)
