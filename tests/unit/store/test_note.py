"""LOCK tells of the newest segment: one that somebody removed is missed, and nothing of it is given twice."""

from __future__ import annotations

import errno

import pytest

from tests.unit.store.test_journal import FOLDER, append, opened
from zbroker.store.note import read_note
from zbroker.store.segment import segment_name
from zbroker.testing.disk import VirtualDisk

RECORDS_MAX = (64 << 10) // 64  # of a segment


def lived(records: int = 5) -> VirtualDisk:
    disk = VirtualDisk()
    journal, _, _ = opened(disk)
    append(journal, 1, records, 3000)
    journal.commit(0)
    journal.close()
    return disk


def remove(disk: VirtualDisk, number: int) -> None:
    disk.remove(f"{FOLDER}/{segment_name(number)}")


def test_a_clean_life_leaves_a_note_and_nothing_is_missed() -> None:
    disk = lived(60)
    note = read_note(disk, disk.open(f"{FOLDER}/LOCK"))
    assert note is not None
    assert (note.number, note.epoch) == (5, 1)
    for _ in range(3):  # lives without a record remove their segments again
        journal, result, _ = opened(disk)
        assert (result.damage, result.next_index) == ([], 61)
        journal.close()


@pytest.mark.parametrize("is_emptied", [False, True])
def test_the_only_segment_is_missed_and_its_numbers_are_not_used_again(is_emptied: bool) -> None:
    disk = lived()
    path = f"{FOLDER}/{segment_name(1)}"
    if is_emptied:
        disk.cut(path, 0)
    else:
        disk.remove(path)
    journal, result, log = opened(disk)
    hole = result.damage[0]
    assert (hole.first_index, hole.last_index, hole.lost_bytes) == (1, RECORDS_MAX, 64 << 10)
    assert (result.epoch, result.next_index) == (2, RECORDS_MAX + 2)
    assert [record.index for record in log] == [RECORDS_MAX + 1]  # LOST
    append(journal, result.next_index, 1)
    journal.commit(0)
    journal.close()
    _, again, log = opened(disk)
    assert (again.damage, again.epoch, len(log)) == (result.damage, 3, 2)


def test_newest_segments_that_are_gone_are_missed_without_a_checkpoint() -> None:
    disk = lived(60)
    remove(disk, 5)
    remove(disk, 4)
    _, result, log = opened(disk)
    hole = result.damage[0]
    assert hole.first_index == log[-2].index + 1
    assert hole.lost_bytes == 2 * (64 << 10)
    assert result.next_index > 60 + 1


def test_a_note_that_is_not_whole_tells_nothing() -> None:
    disk = lived()
    disk.live[f"{FOLDER}/LOCK"].cache[30] ^= 1
    remove(disk, 1)
    assert opened(disk)[1].damage == []


def test_a_disk_without_room_for_a_note_is_no_trouble() -> None:
    disk = VirtualDisk()
    disk.fail("pwrite", errno.ENOSPC, 3)  # after both copies of the header
    journal, _, _ = opened(disk)
    assert disk.content(f"{FOLDER}/LOCK") == b""
    append(journal, 1, 1)
    assert journal.commit(0) == 1
