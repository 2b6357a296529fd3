"""Torn or damaged, and exactly what is lost: one case of FORMAT.md 5 and 6 each."""

import errno
from random import Random

import msgspec
import pytest

from patterns.wire.records import LostRange, Opened, Position, Record, RecordKind, decode_lost
from zbroker.store.journal import FileJournal
from zbroker.store.listing import list_segments
from zbroker.store.recovery import LogScan, Start
from zbroker.store.segment import BLOCK_BYTES, pack_header, segment_name, unpack_header
from zbroker.testing.disk import VirtualDisk

FOLDER = "/j"
SEGMENT_BYTES = 64 << 10


class Log:
    """A journal grown life by life, with what the last open showed."""

    def __init__(self) -> None:
        self.disk = VirtualDisk()
        self.random = Random(5)
        self.places: dict[int, Position] = {}
        self.next_index = 1

    def open(self) -> Opened:
        self.seen: dict[int, Record] = {}
        self.journal = FileJournal(
            self.disk,
            FOLDER,
            segment_bytes=SEGMENT_BYTES,
            random_bytes=self.random.randbytes,
            wall_ms=lambda: 0,
        )
        opened = self.journal.open(lambda record, position: self.seen.update({record.index: record}))
        self.next_index = opened.next_index
        return opened

    def life(self, count: int, size: int = 300) -> None:
        self.open()
        for _ in range(count):
            self.append(size)
            self.journal.commit(0)
        self.journal.close()

    def append(self, size: int = 300) -> None:
        index = self.next_index
        record = Record(index, RecordKind.APPEND, 4, index * 10, 10, b"", bytes([index % 251 + 1]) * size)
        self.places[index] = self.journal.append(record)
        self.next_index += 1

    def path(self, segment: int) -> str:
        return f"{FOLDER}/{segment_name(segment)}"

    def rot(self, index: int, at: int) -> None:
        self.disk.flip_bit(self.path(self.places[index].segment), self.places[index].offset + at)

    def reopen(self) -> Opened:
        opened = self.open()
        self.journal.close()
        return opened


def ranges(opened: Opened) -> list[tuple[int, int, str]]:
    return [(hole.first_index, hole.last_index, hole.reason) for hole in opened.damage]


def test_a_rotten_body_names_its_stream_offsets_and_count() -> None:
    log = Log()
    log.life(5)
    log.rot(3, 100)
    opened = log.reopen()
    assert opened.damage[0].ranges == [LostRange(3, RecordKind.APPEND, 4, 30, 10)]
    assert opened.damage[0].lost_bytes == 0
    assert sorted(log.seen) == [1, 2, 4, 5, 6]
    assert decode_lost(log.seen[6].payload) == opened.damage


def test_a_rotten_header_tells_the_bytes_that_a_stream_must_jump() -> None:
    log = Log()
    log.life(5)
    log.rot(3, 20)
    opened = log.reopen()
    assert ranges(opened) == [(3, 3, "header")]
    assert opened.damage[0].lost_bytes >= log.places[3].size


def test_a_record_that_a_misdirected_write_has_brought_takes_none_between_along() -> None:
    log = Log()
    log.life(12)
    here, there = log.places[3], log.places[9]
    assert here.segment == there.segment == 1  # another one has another salt
    handle = log.disk.open(log.path(1))
    log.disk.pwrite(handle, log.disk.pread(handle, there.size, there.offset), here.offset)
    log.disk.fdatasync(handle)
    opened = log.reopen()
    assert ranges(opened) == [(3, 3, "header")]
    assert sorted(log.seen) == [1, 2, *range(4, 14)]


def test_nor_does_the_padding_behind_records_that_one_has_brought() -> None:
    log = Log()
    log.open()
    for sizes in ([300, 300], [1_000], [300], [300], [300], [20, 20, 20]):
        for size in sizes:
            log.append(size)
        log.journal.commit(0)
    log.journal.close()
    handle = log.disk.open(log.path(1))
    log.disk.pwrite(handle, log.disk.pread(handle, 512, log.places[7].offset), log.places[3].offset)
    log.disk.fdatasync(handle)
    opened = log.reopen()
    assert ranges(opened) == [(3, 3, "header")]
    assert sorted(log.seen) == [1, 2, *range(4, 11)]


def test_a_loss_is_told_once_and_shown_at_every_open() -> None:
    log = Log()
    log.life(5)
    log.rot(3, 20)
    first = log.reopen()
    second = log.reopen()
    assert second.damage == first.damage
    assert second.next_index == first.next_index == 7


def test_what_was_lost_stays_lost_though_it_reads_well_again() -> None:
    log = Log()
    log.life(5)
    log.rot(3, 20)
    log.reopen()
    log.rot(3, 20)
    opened = log.reopen()
    assert 3 not in log.seen
    assert ranges(opened) == [(3, 3, "header")]


def test_a_rotten_account_of_loss_is_written_again() -> None:
    log = Log()
    log.life(5)
    log.rot(3, 100)
    log.reopen()
    log.disk.flip_bit(log.path(2), 4096 + 80)
    opened = log.reopen()
    assert sorted(ranges(opened)) == [(3, 3, "body"), (6, 6, "body")]
    assert log.reopen().damage == opened.damage


def test_a_rotten_filler_loses_nothing() -> None:
    log = Log()
    log.life(5)
    log.disk.flip_bit(log.path(1), log.places[3].offset + 448 + 8)  # the PAD behind record 3
    opened = log.reopen()
    assert not opened.damage
    assert sorted(log.seen) == [1, 2, 3, 4, 5]


def test_the_zeroed_end_of_an_older_segment_is_damage() -> None:
    log = Log()
    log.life(5)
    log.life(5)
    at = log.places[4].offset
    log.disk.zero(log.path(1), at, SEGMENT_BYTES - 4096 - at)
    opened = log.reopen()
    assert ranges(opened) == [(4, 5, "header")]
    assert opened.damage[0].lost_bytes >= 2 * log.places[4].size
    assert sorted(log.seen) == [1, 2, 3, 6, 7, 8, 9, 10, 11]


def test_the_zeroed_end_of_the_last_segment_is_torn_and_its_indexes_are_used_again() -> None:
    log = Log()
    log.life(5)
    at = log.places[4].offset
    log.disk.zero(log.path(1), at, SEGMENT_BYTES - 4096 - at)
    assert ranges(log.reopen()) == []  # FORMAT.md 8.2: nothing is left that knows of them
    assert log.next_index == 4


def test_a_segment_without_either_header_is_a_gap_and_the_rest_is_served() -> None:
    log = Log()
    log.life(3)
    log.life(3)
    log.life(3)
    log.disk.zero(log.path(2), 0, 4096)
    log.disk.zero(log.path(2), SEGMENT_BYTES - 4096, 4096)
    assert ranges(log.reopen()) == [(4, 6, "segment header")]
    assert sorted(log.seen) == [1, 2, 3, 7, 8, 9, 10]


def test_a_last_segment_without_headers_never_gives_its_indexes_away() -> None:
    log = Log()
    log.life(3)
    log.life(3)
    log.disk.zero(log.path(2), 0, 4096)
    log.disk.zero(log.path(2), SEGMENT_BYTES - 4096, 4096)
    opened = log.reopen()
    assert opened.damage[0].first_index == 4
    assert opened.damage[0].last_index >= 6
    assert opened.epoch > 2
    assert log.reopen().damage == opened.damage


def test_a_deleted_segment_is_reported_with_its_range() -> None:
    log = Log()
    for _ in range(3):
        log.life(3)
    log.disk.remove(log.path(1))
    assert ranges(log.reopen()) == [(1, 3, "segment missing")]


def test_void_records_do_not_rise_at_the_second_start() -> None:
    log = Log()
    log.life(3)
    log.open()
    log.append()
    log.append()
    log.journal.commit(0)
    log.disk.crash()
    log.rot(4, 20)  # torn at 4; 5 is whole and was never known to be durable
    assert ranges(log.reopen()) == []
    assert sorted(log.seen) == [1, 2, 3]
    log.rot(4, 20)  # the bytes come back
    log.life(1, size=77)
    log.reopen()
    assert sorted(log.seen) == [1, 2, 3, 4]
    assert len(log.seen[4].payload) == 77


def test_void_records_do_not_rise_when_the_header_that_voids_them_is_lost() -> None:
    log = Log()
    log.life(3)
    log.open()
    log.append()
    log.append()
    log.journal.commit(0)
    log.disk.crash()
    log.rot(4, 20)
    log.life(4, size=77)  # 4 to 7 with new values, in segment 3
    log.life(2)
    log.disk.zero(log.path(3), 0, 4096)
    log.disk.zero(log.path(3), SEGMENT_BYTES - 4096, 4096)
    opened = log.reopen()
    assert [hole[:2] for hole in ranges(opened)] == [(4, 7)]
    assert 5 not in log.seen


def test_damage_before_a_life_that_left_nothing_takes_no_record_beside_it() -> None:
    log = Log()
    log.open()
    for _ in range(3):
        log.append()
    log.journal.commit(0)  # 3 has no later record in its life that says it was durable
    log.disk.crash()
    log.open()  # a life without a record, in segment 2
    log.disk.crash()
    log.life(1)  # removes it
    assert log.path(2) not in log.disk.live
    log.rot(1, 20)
    log.rot(2, 20)
    opened = log.reopen()
    assert [hole[:2] for hole in ranges(opened)] == [(1, 2)]
    assert sorted(index for index in log.seen if log.seen[index].kind == RecordKind.APPEND) == [3, 4]


def test_damage_before_a_segment_that_was_given_back_takes_no_record_beside_it() -> None:
    log = Log()
    log.open()
    for _ in range(3):
        log.append()
    log.journal.commit(0)
    log.disk.crash()
    log.life(2)
    log.life(1)
    log.disk.remove(log.path(2))
    log.rot(1, 20)
    log.rot(2, 20)
    seen: list[int] = []
    files = list_segments(log.disk, FOLDER)[:1]
    start = Start(1, BLOCK_BYTES, first_index=1, durable=3)  # as the checkpoint has it
    scan = LogScan(log.disk, files, lambda record, position: seen.append(record.index), start=start, until=4).run()
    assert [(hole.first_index, hole.last_index) for hole in scan.found] == [(1, 2)]
    assert seen == [3]


def test_an_old_segment_under_a_new_number_changes_nothing() -> None:
    log = Log()
    log.life(3)
    log.life(3)
    handle = log.disk.open(log.path(9), create=True)
    log.disk.pwrite(handle, log.disk.content(log.path(1)), 0)
    log.reopen()
    assert [log.seen[index].base_offset for index in range(1, 7)] == [10, 20, 30, 40, 50, 60]


def test_of_a_hole_only_what_was_confirmed_is_lost_and_the_rest_is_void() -> None:
    log = Log()
    log.life(2)
    log.open()
    log.append()
    log.journal.commit(0)
    log.append()
    log.append()
    log.journal.commit(0)  # 4 and 5 know that 3 is durable; nothing knows that of them
    log.disk.crash()
    log.rot(3, 20)
    log.rot(4, 20)
    assert ranges(log.reopen()) == [(3, 3, "header")]
    assert sorted(log.seen) == [1, 2, 4]
    assert log.seen[4].kind == RecordKind.LOST


def test_a_header_that_goes_back_in_index_is_ignored() -> None:
    log = Log()
    log.life(3)
    log.life(3)
    log.open()
    log.disk.crash()
    header = unpack_header(log.disk.content(log.path(3))[:4096])
    assert header is not None
    block, _ = pack_header(msgspec.structs.replace(header, first_index=2))
    handle = log.disk.open(log.path(3))
    log.disk.pwrite(handle, block, 0)
    log.disk.pwrite(handle, block, SEGMENT_BYTES - 4096)
    assert ranges(log.reopen()) == []
    assert sorted(log.seen) == [1, 2, 3, 4, 5, 6]


def test_a_sector_that_cannot_be_read_is_damage_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    log.life(5)
    bad = log.places[3].offset
    whole = log.disk.pread

    def pread(handle: int, length: int, offset: int) -> bytes:
        data = whole(handle, length, offset)
        if offset <= bad < offset + length and data[bad - offset :][:4] == b"ZBR1":
            raise OSError(errno.EIO, "bad sector")
        return data

    monkeypatch.setattr(log.disk, "pread", pread)
    assert ranges(log.open()) == [(3, 3, "header")]
    assert sorted(log.seen) == [1, 2, 4, 5, 6]


def test_a_cut_while_the_loss_is_written_down_changes_nothing() -> None:
    for countdown in range(1, 4):
        log = Log()
        log.life(5)
        log.rot(3, 100)
        log.disk.fail("pwritev", errno.EIO, countdown)
        with pytest.raises(Exception, match="failed"):
            log.open()
        log.disk.power_cut(Random(countdown))
        opened = log.reopen()
        assert ranges(opened) == [(3, 3, "body")]
        assert log.reopen().damage == opened.damage
