"""A compacted segment as it is read: whole, or with an exact account of what is not."""

import pytest

from patterns.wire.records import LostRange, Position, Record, RecordKind
from tests.unit.store.halved import COMPACTED, FOLDER, SEGMENT_BYTES, Halved
from zbroker.store.compacted import Content, Seal, cut_off, is_whole, look_through
from zbroker.store.listing import SegmentFile, list_segments
from zbroker.store.verify import verify_folder
from zbroker.testing.disk import VirtualDisk


@pytest.fixture
def compacted(monkeypatch: pytest.MonkeyPatch) -> tuple[VirtualDisk, dict[tuple[int, int], Position]]:
    world = Halved(monkeypatch)
    world.fill()
    world.forget()
    world.tidy()
    world.journal.close()
    return world.disk, world.places


def first(disk: VirtualDisk) -> SegmentFile:
    return list_segments(disk, FOLDER)[0]


def look(disk: VirtualDisk) -> tuple[Content, list[Record]]:
    file, records = first(disk), list[Record]()
    assert file.header is not None
    content = look_through(disk, file.path, file.size, file.header, lambda record, _: records.append(record))
    return content, records


Compacted = tuple[VirtualDisk, dict[tuple[int, int], Position]]


def test_whole_is_what_its_seal_says(compacted: Compacted) -> None:
    disk, _ = compacted
    content, records = look(disk)
    assert content.is_whole
    assert content.seal is not None
    assert content.seal.records == len(records) == content.records
    assert {stream for stream, _, _ in content.seal.spans} == {7, 8, 9}, "those of which nothing is left too"


def test_a_rotten_body_takes_its_record_and_says_which(compacted: Compacted) -> None:
    disk, places = compacted
    _, before = look(disk)
    disk.flip_bit(COMPACTED, places[7, 2].offset + 200)
    content, records = look(disk)
    assert not content.is_whole
    assert [(lost.stream_id, lost.base_offset, lost.count) for lost in content.rotten] == [(7, 2, 1)]
    assert records == [record for record in before if (record.stream_id, record.base_offset) != (7, 2)]


def test_a_rotten_header_takes_its_record_and_no_other(compacted: Compacted) -> None:
    disk, places = compacted
    _, before = look(disk)
    disk.flip_bit(COMPACTED, places[7, 2].offset + 20)
    content, records = look(disk)
    assert content.lost_bytes
    assert content.seal is not None
    assert len(records) == len(before) - 1


def test_a_seal_that_is_gone_is_noticed(compacted: Compacted) -> None:
    disk, places = compacted
    last = max((place for place in places.values() if place.segment == 1), key=lambda place: place.offset)
    seal = (last.offset + last.size + 63) // 64 * 64
    disk.zero(COMPACTED, seal, 64)
    content, _ = look(disk)
    assert content.seal is None
    file = first(disk)
    assert file.header is not None
    assert not is_whole(disk, file.path, file.size, file.header)


def test_verify_tells_of_generations_and_of_damage_in_them(compacted: Compacted) -> None:
    disk, places = compacted
    report = verify_folder(disk, FOLDER)
    assert report.is_whole
    assert (report.segments[0].state, report.segments[0].generation) == ("compacted", 1)
    disk.flip_bit(COMPACTED, places[7, 2].offset + 200)
    report = verify_folder(disk, FOLDER)
    assert report.segments[0].state == "damaged"
    assert [hole.ranges[0].base_offset for hole in report.damage] == [2]


def test_verify_counts_a_file_that_was_replaced_and_is_still_there_as_reclaimable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = Halved(monkeypatch)
    world.fill()
    world.forget()
    while COMPACTED not in world.disk.live:
        world.tidy(1)
    world.disk.crash()
    report = verify_folder(world.disk, FOLDER)
    assert report.is_whole
    assert report.segments[0].generation == 1
    assert report.reclaimable >= SEGMENT_BYTES


def test_offsets_of_which_no_record_is_left_are_told_of_at_the_end_of_each_stream() -> None:
    content = Content(seal=Seal(records=1, last_index=9, spans=[(7, 0, 9), (8, 5, 5)]))
    assert cut_off(content, {7: 6}) == [
        LostRange(0, RecordKind.APPEND, 7, 6, 4),
        LostRange(0, RecordKind.APPEND, 8, 5, 1),
    ]
    assert cut_off(content, {7: 10, 8: 6}) == []


def test_without_a_checkpoint_what_was_taken_out_is_told_lost_and_no_offset_is_free(compacted: Compacted) -> None:
    disk, _ = compacted
    for path in [path for path in disk.live if "checkpoint-" in path]:
        disk.remove(path)
    report = verify_folder(disk, FOLDER)
    reasons = {hole.reason for hole in report.damage}
    assert reasons == {"compacted"}
    assert report.records


def test_without_a_checkpoint_the_log_opens_serves_what_is_wanted_and_tells_the_rest_lost_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = Halved(monkeypatch)
    world.fill()
    world.forget()
    world.tidy()
    world.journal.close()
    for path in [path for path in world.disk.live if "checkpoint-" in path]:
        world.disk.remove(path)
    told = []
    for _ in range(2):
        world.open()
        assert {hole.reason for hole in world.opened.damage} == {"compacted"}
        assert {lost.stream_id for hole in world.opened.damage for lost in hole.ranges} <= {7, 8, 9}
        told.append([(hole.first_index, hole.last_index) for hole in world.opened.damage])
        world.check()
        world.journal.close()
    assert told[0] == told[1]
