"""Zeros ahead of small commits: when, how far, and that nothing committed is touched."""

import errno

import pytest

from patterns.wire.records import Record, RecordKind
from zbroker.store.disk import FileSystem
from zbroker.store.faults import JournalFailed
from zbroker.store.filling import FILL_BYTES, SMALL_BYTES, Filling
from zbroker.store.journal import FileJournal
from zbroker.store.segment import BLOCK_BYTES, data_end
from zbroker.testing.disk import VirtualDisk

SEGMENT_BYTES = 4 << 20


def filling(is_wanted: bool = True, segment_bytes: int = SEGMENT_BYTES) -> tuple[VirtualDisk, int, Filling]:
    disk = VirtualDisk()
    handle = disk.open("/f", create=True)
    disk.fallocate(handle, segment_bytes)
    found = Filling(disk, segment_bytes)
    found.is_wanted = is_wanted
    return disk, handle, found


def opened(disk: VirtualDisk) -> FileJournal:
    journal = FileJournal(disk, "/j", random_bytes=bytes, wall_ms=lambda: 0, segment_bytes=SEGMENT_BYTES)
    journal.open(lambda record, position: None)
    return journal


def test_it_is_due_behind_a_small_commit_and_not_again_before_most_of_it_is_used() -> None:
    _, handle, found = filling()
    assert not found.is_due
    found.note(2 * BLOCK_BYTES, BLOCK_BYTES)
    assert found.is_due
    found.fill(handle)
    assert not found.is_due
    found.note(2 * BLOCK_BYTES + FILL_BYTES * 3 // 4, BLOCK_BYTES)
    assert not found.is_due
    found.note(3 * BLOCK_BYTES + FILL_BYTES * 3 // 4, BLOCK_BYTES)
    assert found.is_due


def test_commits_that_are_not_so_small_find_room_for_another_like_them() -> None:
    _, handle, found = filling()
    found.note(BLOCK_BYTES + SMALL_BYTES, SMALL_BYTES)
    found.fill(handle)
    found.note(BLOCK_BYTES + 2 * SMALL_BYTES, SMALL_BYTES)
    assert not found.is_due
    found.note(2 * BLOCK_BYTES + 2 * SMALL_BYTES, SMALL_BYTES)
    assert found.is_due


def test_large_commits_and_file_systems_without_marks_are_left_alone() -> None:
    _, _, found = filling()
    found.note(BLOCK_BYTES + 2 * SMALL_BYTES, SMALL_BYTES + 1)
    assert not found.is_due
    _, _, found = filling(is_wanted=False)
    found.note(2 * BLOCK_BYTES, BLOCK_BYTES)
    assert not found.is_due


def test_it_is_synced_and_ends_before_the_second_header() -> None:
    disk, handle, found = filling()
    end = data_end(SEGMENT_BYTES) - BLOCK_BYTES
    disk.pwrite(handle, b"x" * BLOCK_BYTES, end - BLOCK_BYTES)
    disk.pwrite(handle, b"x" * BLOCK_BYTES, data_end(SEGMENT_BYTES))
    found.note(end, BLOCK_BYTES)
    found.fill(handle)
    assert disk.live["/f"].unsynced == {}
    content = disk.content("/f")
    assert content[end - BLOCK_BYTES : end] == content[-BLOCK_BYTES:] == b"x" * BLOCK_BYTES
    assert not any(content[end:-BLOCK_BYTES])
    found.note(data_end(SEGMENT_BYTES), BLOCK_BYTES)
    assert not found.is_due


def test_a_commit_that_went_beyond_the_zeros_is_not_overwritten() -> None:
    disk, handle, found = filling()
    found.note(2 * BLOCK_BYTES, BLOCK_BYTES)
    found.fill(handle)
    end = 2 * BLOCK_BYTES + 2 * FILL_BYTES
    disk.pwrite(handle, b"x" * (end - BLOCK_BYTES), BLOCK_BYTES)
    found.note(end, BLOCK_BYTES)
    found.fill(handle)
    assert disk.content("/f")[BLOCK_BYTES:end] == b"x" * (end - BLOCK_BYTES)


def test_without_space_it_is_left_until_the_next_segment() -> None:
    disk, handle, found = filling()
    found.note(2 * BLOCK_BYTES, BLOCK_BYTES)
    disk.fail("pwritev", errno.ENOSPC)
    found.fill(handle)
    found.note(3 * BLOCK_BYTES, BLOCK_BYTES)
    assert not found.is_due
    found.begin()
    found.note(2 * BLOCK_BYTES, BLOCK_BYTES)
    assert found.is_due


def test_in_a_new_segment_it_begins_anew() -> None:
    _, handle, found = filling()
    found.note(2 * BLOCK_BYTES, BLOCK_BYTES)
    found.fill(handle)
    found.begin()
    assert not found.is_due
    found.note(2 * BLOCK_BYTES, BLOCK_BYTES)
    assert found.is_due


def test_a_journal_fills_when_its_time_has_come_and_fails_with_a_disk_that_does_not_sync() -> None:
    disk = VirtualDisk()
    disk.kind = FileSystem("ext4", False, [], marks_unwritten=True)
    journal = opened(disk)
    journal.append(Record(1, RecordKind.APPEND, 1, 0, 1, b"", b"body"))
    assert journal.commit(0) == 1
    before = disk.calls["fdatasync"]
    journal.handle_timeout(0)
    assert (disk.calls["fdatasync"], journal.next_timeout()) == (before, 1)  # in a turn of its own
    journal.handle_timeout(1)
    assert (disk.calls["fdatasync"], journal.status()["syncs"]) == (before + 1, 2)  # it confirms nothing: not counted
    assert journal.next_timeout() != 1
    journal.append(Record(2, RecordKind.APPEND, 1, 1, 1, b"", bytes(FILL_BYTES)))
    journal.commit(0)
    journal.append(Record(3, RecordKind.APPEND, 1, 2, 1, b"", b"body"))
    journal.commit(0)
    disk.fail("fdatasync", errno.EIO)
    with pytest.raises(JournalFailed):
        journal.handle_timeout(1)
