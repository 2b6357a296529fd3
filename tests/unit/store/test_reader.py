"""Reading by place: verified, merged, and with a bounded number of open files."""

import errno
from random import Random

import pytest

from patterns.wire.records import Position, Record, RecordKind
from zbroker.store.faults import RecordDamaged, RecordMoved, RecordUnreadable
from zbroker.store.journal import FileJournal
from zbroker.store.reader import FILES_MAX, RecordReader
from zbroker.store.segment import BLOCK_BYTES, data_end, segment_name
from zbroker.testing.disk import VirtualDisk

FOLDER = "/j"
SEGMENT_BYTES = 64 << 10
FIRST = f"{FOLDER}/{segment_name(1)}"


def written(count: int = 3, size: int = 100, commits_of: int = 1000) -> tuple[VirtualDisk, list[Position]]:
    disk = VirtualDisk()
    random_bytes = Random(1).randbytes
    journal = FileJournal(disk, FOLDER, segment_bytes=SEGMENT_BYTES, random_bytes=random_bytes, wall_ms=lambda: 0)
    journal.open(lambda record, position: None)
    places = []
    for index in range(1, count + 1):
        places.append(journal.append(record(index, size)))
        if index % commits_of == 0:
            journal.commit(0)
    journal.close()
    disk.calls.clear()
    return disk, places


def record(index: int, size: int = 100) -> Record:
    return Record(index, RecordKind.APPEND, 1, index, 1, b"c", bytes([index % 256]) * size)


def test_records_are_read_by_their_places_in_the_order_asked() -> None:
    disk, places = written(30, 5000)
    asked = [7, 29, 0, 7, 12]
    assert RecordReader(disk, FOLDER).read([places[number] for number in asked]) == [
        record(number + 1, 5000) for number in asked
    ]


def test_neighbours_are_one_call_and_the_salt_is_read_once() -> None:
    disk, places = written(40)
    reader = RecordReader(disk, FOLDER)
    for _ in range(2):
        assert reader.read(places) == [record(index) for index in range(1, 41)]
    assert disk.calls["pread"] == reader.calls == 3
    assert disk.calls["open"] == reader.files == 1


@pytest.mark.parametrize("every", [2, 7, 20])
def test_whatever_is_asked_at_most_four_times_as_much_is_read(every: int) -> None:
    disk, places = written(400)
    reader = RecordReader(disk, FOLDER)
    reader.read(places[::every])
    headers = BLOCK_BYTES * reader.files
    assert reader.wanted_bytes <= reader.read_bytes - headers <= 4 * reader.wanted_bytes


@pytest.mark.parametrize(("at", "size"), [(64, 0), (0, 8), (1 << 20, 0)])
def test_a_wrong_place_is_no_record_and_its_neighbours_are_read(at: int, size: int) -> None:
    disk, places = written()
    wrong = Position(1, places[1].offset + at + 1, places[1].size + size)
    first, found, last = RecordReader(disk, FOLDER).read([places[0], wrong, places[2]])
    assert isinstance(found, RecordDamaged)
    assert (first, last) == (record(1), record(3))


def test_a_flipped_bit_is_damage_of_one_record() -> None:
    disk, places = written()
    disk.flip_bit(FIRST, places[1].offset + places[1].size - 1)
    first, found, last = RecordReader(disk, FOLDER).read(places)
    assert isinstance(found, RecordDamaged)
    assert "CRC" in str(found)
    assert (first, last) == (record(1), record(3))


def test_a_disk_error_is_damage_when_it_hits_the_record_alone_too() -> None:
    disk, places = written()
    reader = RecordReader(disk, FOLDER)
    reader.read(places[:1])
    disk.fail("pread", errno.EIO)
    assert reader.read(places) == [record(1), record(2), record(3)]
    disk.fail("pread", errno.EIO)
    disk.fail("pread", errno.EIO, countdown=2)  # after that of the header
    first, second, _ = reader.read(places)
    assert isinstance(first, RecordDamaged)
    assert "Input/output" in str(first)
    assert second == record(2)


def test_a_header_that_cannot_be_read_has_a_copy() -> None:
    disk, places = written()
    disk.zero(FIRST, 0, BLOCK_BYTES)
    assert RecordReader(disk, FOLDER).read(places) == [record(1), record(2), record(3)]
    disk.zero(FIRST, data_end(SEGMENT_BYTES), BLOCK_BYTES)
    [found] = RecordReader(disk, FOLDER).read(places[:1])
    assert isinstance(found, RecordDamaged)
    assert "header" in str(found)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
def test_a_file_that_cannot_be_opened_now_is_no_damage(code: int) -> None:
    disk, places = written()
    reader = RecordReader(disk, FOLDER)
    disk.fail("open", code)
    disk.fail("open", code)
    found = reader.read(places[:1])
    assert isinstance(found[0], RecordUnreadable)
    assert reader.read(places[:1]) == [record(1)]


def test_a_file_that_is_gone_is_no_damage_and_one_that_is_open_still_serves() -> None:
    disk, places = written()
    reader = RecordReader(disk, FOLDER)
    assert reader.read(places[:1]) == [record(1)]
    disk.unlink(FIRST)
    assert reader.read(places[1:]) == [record(2), record(3)]
    reader.close()
    assert [type(found) for found in reader.read(places)] == [RecordMoved] * 3


def test_a_file_that_was_replaced_since_it_was_opened_is_read_anew() -> None:
    disk, places = written()
    reader = RecordReader(disk, FOLDER)
    reader.read(places)
    kept = disk.content(FIRST)
    disk.zero(FIRST, 0, len(kept))  # the space was put to another use ..
    disk.unlink(FIRST)
    handle = disk.open(FIRST, create=True)  # .. and the name has its records again
    disk.pwrite(handle, kept, 0)
    disk.close(handle)
    assert reader.read(places) == [record(1), record(2), record(3)]


def test_a_position_names_the_generation_of_its_file() -> None:
    disk, places = written()
    disk.rename(FIRST, f"{FOLDER}/{segment_name(1, 3)}")
    reader = RecordReader(disk, FOLDER)
    later = [Position(place.segment, place.offset, place.size, generation=3) for place in places]
    assert reader.read(later) == [record(1), record(2), record(3)]
    assert isinstance(reader.read(places[:1])[0], RecordMoved)


def test_open_files_are_bounded_and_all_let_go() -> None:
    disk, places = written(FILES_MAX + 10, 40_000)
    reader = RecordReader(disk, FOLDER)
    assert len({place.segment for place in places}) == FILES_MAX + 10
    assert reader.read(places) == [record(index, 40_000) for index in range(1, FILES_MAX + 11)]
    assert len(disk._handles) == reader.files == FILES_MAX
    reader.close()
    assert not disk._handles
