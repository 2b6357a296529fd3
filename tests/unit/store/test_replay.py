"""What an open reads is what verify and export read, and what a checkpoint covers is read as the checkpoint has it."""

import pytest

from patterns.wire.records import Damage
from tests.unit.store.halved import FOLDER, Halved
from tests.unit.store.test_recovery import FOLDER as PLAIN
from tests.unit.store.test_recovery import SEGMENT_BYTES, Log
from zbroker.store.listing import list_segments
from zbroker.store.replay import Whole, read_whole, replay
from zbroker.store.restore import judge_all, newest_usable
from zbroker.store.verify import verify_folder


def lose_headers(log: Log, number: int) -> None:
    log.disk.zero(log.path(number), 0, 4096)
    log.disk.zero(log.path(number), SEGMENT_BYTES - 4096, 4096)


def with_void() -> Log:
    """Segment 1 ends with records 4 and 5, of which 4 is rotten: so 4 to 7 of segment 2 have their place. A checkpoint follows."""
    log = Log()
    log.open()
    for _ in range(3):
        log.append()
    log.journal.commit(0)
    for _ in range(2):
        log.append()
    log.journal.commit(0)
    log.disk.crash()
    log.rot(4, 20)
    log.life(4, size=77)
    log.open()
    log.journal.begin_checkpoint()
    log.journal.put_checkpoint(b"", 0)
    log.journal.end_checkpoint(log.next_index - 1)
    log.append()
    log.journal.commit(0)
    log.journal.handle_timeout(0)
    log.journal.handle_timeout(0)
    log.disk.crash()
    return log


def whole(log: Log) -> tuple[Whole, list[int]]:
    files = list_segments(log.disk, PLAIN)
    seen: list[int] = []
    newest = newest_usable(judge_all(log.disk, PLAIN, files))
    assert newest is not None
    return read_whole(log.disk, files, lambda record, position: seen.append(record.index), newest, None), seen


def test_a_whole_log_is_shown_in_order_each_record_once() -> None:
    log = with_void()
    found, seen = whole(log)
    assert seen == list(range(1, 9))
    assert not found.found
    assert (found.end_index, found.records) == (9, 8)
    assert [report.number for report in found.reports] == [1, 2, 3]


def test_void_records_are_not_shown_though_the_header_that_voids_them_is_lost() -> None:
    log = with_void()
    lose_headers(log, 2)
    found, seen = whole(log)
    assert seen == [1, 2, 3, 8]
    assert [(hole.first_index, hole.last_index, hole.reason) for hole in found.found] == [(4, 7, "segment missing")]
    assert [report.state for report in found.reports] == ["whole", "headless", "whole"]


def test_the_zeroed_end_of_a_segment_that_a_checkpoint_covers_is_damage() -> None:
    log = with_void()
    log.disk.zero(log.path(2), log.places[7].offset, 4096)
    found, seen = whole(log)
    assert seen == [1, 2, 3, 4, 5, 6, 8]
    assert [(hole.first_index, hole.last_index) for hole in found.found] == [(7, 7)]
    assert [report.state for report in found.reports] == ["whole", "damaged", "whole"]


@pytest.mark.parametrize("back", [1, 2])
def test_newest_segments_without_headers_are_one_hole_to_verify_and_to_an_open(
    monkeypatch: pytest.MonkeyPatch, back: int
) -> None:
    """Compacted ones are before them, and the checkpoint begins in the midst of a segment."""
    world = Halved(monkeypatch)
    world.fill()
    world.forget()
    world.tidy()
    world.fill(30)
    world.journal.close()
    files = [file for file in list_segments(world.disk, FOLDER) if file.header is not None][-back:]
    for file in files:
        world.disk.zero(file.path, 0, 4096)
        world.disk.zero(file.path, file.size - 4096, 4096)
    report = verify_folder(world.disk, FOLDER)
    world.open()
    assert _ranges(world.opened.damage) == _ranges(report.damage)
    assert world.opened.next_index > report.next_index


def _ranges(holes: list[Damage]) -> list[tuple[int, int, int, str]]:
    return [(hole.first_index, hole.last_index, hole.lost_bytes, hole.reason) for hole in holes]


def test_segments_that_a_checkpoint_lists_are_told_missing_unless_somebody_has_told_so() -> None:
    log = with_void()
    log.disk.remove(log.path(1))
    files = list_segments(log.disk, PLAIN)
    meta = newest_usable(judge_all(log.disk, PLAIN, files))
    found = replay(log.disk, files, lambda record, position: None, meta, None)
    assert [(hole.first_index, hole.last_index) for hole in found.fresh] == [(1, 3)]
    assert meta is not None
    meta.damage.extend(found.fresh)
    again = replay(log.disk, files, lambda record, position: None, meta, None)
    assert (again.fresh, again.known) == ([], found.fresh)
