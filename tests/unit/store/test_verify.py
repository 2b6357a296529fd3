"""Verify tells what an open would find, and changes nothing."""

from random import Random

import pytest

from patterns.wire.records import Record, RecordKind
from tests.unit.store.halved import Halved
from tests.unit.store.trusting import Trusting
from zbroker.store.journal import FileJournal
from zbroker.store.segment import segment_name
from zbroker.store.verify import verify_folder
from zbroker.testing.disk import VirtualDisk

PATH = f"/j/{segment_name(1)}"


def written(count: int) -> tuple[VirtualDisk, int]:
    disk = VirtualDisk()
    journal = FileJournal(disk, "/j", segment_bytes=64 << 10, random_bytes=Random(1).randbytes, wall_ms=lambda: 0)
    journal.open(lambda record, position: None)
    place = None
    for index in range(1, count + 1):
        place = journal.append(Record(index, RecordKind.APPEND, payload=b"x" * 100))
    journal.commit(0)
    disk.crash()
    assert place is not None
    return disk, place.offset


def test_a_whole_folder_is_reported_whole() -> None:
    report = verify_folder(written(5)[0], "/j")
    assert report.is_whole
    assert [(part.state, part.first_index, part.last_index) for part in report.segments] == [("whole", 1, 5)]
    assert report.next_index == 6


def test_a_torn_tail_is_reported_with_its_bytes() -> None:
    disk, last = written(5)
    disk.flip_bit(PATH, last + 4)
    report = verify_folder(disk, "/j")
    assert report.is_whole  # what was never known to be confirmed is no damage
    assert [part.state for part in report.segments] == ["torn"]
    assert report.torn_bytes > 0
    assert report.next_index == 5


def test_damage_is_reported_with_its_range_and_nothing_is_changed() -> None:
    disk, last = written(5)
    journal = FileJournal(disk, "/j", segment_bytes=64 << 10, random_bytes=Random(2).randbytes, wall_ms=lambda: 0)
    journal.open(lambda record, position: None)
    journal.append(Record(6, RecordKind.OPS))
    journal.close()
    disk.flip_bit(PATH, last + 4)
    before = {name: disk.content(name) for name in disk.live}
    report = verify_folder(disk, "/j")
    assert not report.is_whole
    assert [(hole.first_index, hole.last_index) for hole in report.damage] == [(5, 5)]
    assert report.segments[0].state == "damaged"
    assert {name: disk.content(name) for name in disk.live} == before


def test_files_without_anything_of_the_log_are_reclaimable_and_counted() -> None:
    disk, _ = written(5)
    for seed in (2, 3):
        random = Random(seed)
        journal = FileJournal(disk, "/j", segment_bytes=64 << 10, random_bytes=random.randbytes, wall_ms=lambda: 0)
        journal.open(lambda record, position: None)
        disk.crash()
    heard: list[int] = []
    report = verify_folder(disk, "/j", heard.append)
    assert [part.reclaimable for part in report.segments] == [0, 64 << 10]
    assert report.reclaimable == 64 << 10
    assert sum(heard) == 2 * (64 << 10)


def with_checkpoint(disk: VirtualDisk) -> int:
    """Another life writes 6 to 10, and a checkpoint that tells of them; returns where record 10 lies in segment 2."""
    journal = FileJournal(disk, "/j", segment_bytes=64 << 10, random_bytes=Random(2).randbytes, wall_ms=lambda: 0)
    journal.open(lambda record, position: None)
    for index in range(6, 11):
        place = journal.append(Record(index, RecordKind.APPEND, payload=b"x" * 100))
    journal.commit(0)
    journal.begin_checkpoint()
    journal.end_checkpoint(10)
    while journal.checkpoint_due or not any("checkpoint-" in name for name in disk.live):
        journal.handle_timeout(0)
    disk.crash()
    return place.offset


def test_a_tail_that_a_checkpoint_knows_is_damaged_and_not_torn() -> None:
    disk, _ = written(5)
    last = with_checkpoint(disk)
    path = f"/j/{segment_name(2)}"
    disk.zero(path, last, len(disk.content(path)) - 4096 - last)
    report = verify_folder(disk, "/j")
    assert not report.is_whole
    assert [(hole.first_index, hole.last_index) for hole in report.damage] == [(10, 10)]
    assert report.next_index == 11


def test_newest_segments_that_are_gone_are_missed_by_the_checkpoint() -> None:
    disk, _ = written(5)
    with_checkpoint(disk)
    disk.remove(f"/j/{segment_name(2)}")
    report = verify_folder(disk, "/j")
    reason = "segment missing"
    told = [(hole.first_index, hole.last_index, hole.reason) for hole in report.damage]
    assert told == [(6, 10, reason), (11, 10 + (256 << 20) // 64, reason)]  # as much as comes before another checkpoint


def _headless(disk: VirtualDisk, *numbers: int) -> None:
    for number in numbers:
        path = f"/j/{segment_name(number)}"
        disk.zero(path, 0, 4096)
        disk.zero(path, len(disk.content(path)) - 4096, 4096)


@pytest.mark.parametrize("numbers", [(2,), (1, 2)])
def test_headers_that_are_gone_are_the_same_to_verify_and_to_an_open_which_keeps_to_the_checkpoint(
    numbers: tuple[int, ...],
) -> None:
    disk, _ = written(5)
    with_checkpoint(disk)
    _headless(disk, *numbers)
    report = verify_folder(disk, "/j")
    journal = FileJournal(disk, "/j", segment_bytes=64 << 10, random_bytes=Random(3).randbytes, wall_ms=lambda: 0)
    opened = journal.open(lambda record, position: None, Trusting())
    journal.close()
    found = {index for hole in opened.damage for index in range(hole.first_index, hole.last_index + 1)}
    assert found == {index for hole in report.damage for index in range(hole.first_index, hole.last_index + 1)}
    assert report.next_index == opened.next_index - 1  # LOST
    assert opened.epoch > 2
    assert min(found) == (6 if numbers == (2,) else 1)
    assert max(found) < 10 + (64 << 10) // 64
    again = verify_folder(disk, "/j")
    assert [one.why_not for one in again.checkpoints] == [None], "the new segment is of the same journal"


def test_zeros_at_the_end_of_a_segment_whose_successor_was_given_back_are_no_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = Halved(monkeypatch)
    world.fill(60)
    for at in range(100_000, 100_070):  # a segment and more of what nobody will want
        world.append(9, at, bytes(2_000))
        world.journal.commit(world.now)
    world.journal.forget([(9, 0, 200_000)])
    for _ in range(3):
        world.fill(20)
        world.checkpoint()
    numbers = [number for number, _ in world.segments]
    before = next(number for number in numbers if number + 1 not in numbers)
    assert before != numbers[-1], "one was given back"
    world.journal.close()
    assert verify_folder(world.disk, world.folder).is_whole
    path = f"{world.folder}/{segment_name(before)}"
    last = len(world.disk.content(path)[:-4096].rstrip(b"\0")) // 4096 * 4096
    world.disk.zero(path, last, 4096)
    report = verify_folder(world.disk, world.folder)
    assert [(hole.segment, hole.offset) for hole in report.damage] == [(before, last)]
