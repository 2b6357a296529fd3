"""Reading by place: verified, and with a bounded number of open files."""

import errno

import pytest

from patterns.wire.records import Position, Record, RecordKind
from zbroker.store.faults import RecordDamaged, RecordUnreadable
from zbroker.store.reader import FILES_MAX, RecordReader
from zbroker.store.record import build_body, build_header
from zbroker.store.segment import segment_name
from zbroker.testing.disk import VirtualDisk

SALT_CRC = 5
PLACE = Position(1, 4096, 72)


def reader_of(disk: VirtualDisk, segments: int = 1) -> RecordReader:
    reader = RecordReader(disk, "/j")
    for number in range(1, segments + 1):
        prefix, body_crc = build_body(b"", b"body")
        header, _ = build_header(SALT_CRC, body_crc, 8, 0, 1, 0, Record(number, RecordKind.OPS))
        handle = disk.open(f"/j/{segment_name(number)}", create=True)
        disk.pwrite(handle, header + prefix + b"body", 4096)
        disk.close(handle)
        reader.add(number, SALT_CRC)
    return reader


def test_a_record_is_read_by_its_place() -> None:
    assert reader_of(VirtualDisk()).read(PLACE).payload == b"body"


@pytest.mark.parametrize(
    "place", [Position(2, 4096, 72), Position(1, 4160, 72), Position(1, 4096, 80), Position(1, 9999, 72)]
)
def test_a_wrong_place_is_no_record(place: Position) -> None:
    with pytest.raises(RecordDamaged):
        reader_of(VirtualDisk()).read(place)


def test_a_disk_error_is_damage_to_the_reader() -> None:
    disk = VirtualDisk()
    reader = reader_of(disk)
    disk.fail("pread", errno.EIO)
    with pytest.raises(RecordDamaged, match="Input/output"):
        reader.read(PLACE)
    assert reader.read(PLACE).index == 1


def test_a_file_that_cannot_be_opened_now_is_no_damage() -> None:
    disk = VirtualDisk()
    reader = reader_of(disk)
    disk.fail("open", errno.EMFILE)
    with pytest.raises(RecordUnreadable):
        reader.read(PLACE)
    assert reader.read(PLACE).index == 1


def test_open_files_are_bounded_and_all_let_go() -> None:
    disk = VirtualDisk()
    reader = reader_of(disk, FILES_MAX + 10)
    for number in range(1, FILES_MAX + 11):
        assert reader.read(Position(number, 4096, 72)).index == number
    assert len(disk._handles) == FILES_MAX
    reader.close()
    assert not disk._handles
