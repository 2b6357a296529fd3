"""Which checkpoint belongs to a folder, and which does not; recovery under faults is in tests/property."""

from msgspec.structs import replace

from zbroker.store.checkpoint import Meta, checkpoint_name
from zbroker.store.chunks import META as META_TAG
from zbroker.store.chunks import ChunkWriter
from zbroker.store.listing import SegmentFile
from zbroker.store.liveness import Liveness
from zbroker.store.restore import missing_segments, objection, restore_newest, start_of
from zbroker.store.segment import SegmentHeader
from zbroker.testing.disk import VirtualDisk

UUID = b"u" * 16


def file(number: int, oldest_needed: int = 1) -> SegmentFile:
    header = SegmentHeader(
        UUID, number, number, 0, 1, 10 * number, 0, 0, b"s" * 16, 1 << 16, 0, oldest_needed, crc=number
    )
    return SegmentFile(number, 0, f"/j/{number}", 1 << 16, header)


FILES = [file(1), file(2), file(3)]
META = Meta(1, 1, UUID, 1, 25, 29, 2, 8192, 2, 2, [(1, 10), (2, 20)], [], 0)


def test_one_that_fits_starts_the_replay_where_it_was_cut() -> None:
    assert objection(META, FILES) is None
    assert missing_segments(META, FILES) == []
    assert start_of(META) == (2, 8192, 25, 29)
    assert start_of(None) is None


def test_each_reason_to_refuse_one_is_said() -> None:
    cases = {
        "format 9": (replace(META, reader_min=9), FILES),
        "another journal": (replace(META, uuid=b"v" * 16), FILES),
        "another life": (replace(META, header_crc=77), FILES),
        "was given back": (META, [file(1), file(2), file(3, oldest_needed=26)]),
        "another time": (replace(META, first_index=99), [file(1), file(3)]),
        "header is whole": (META, [SegmentFile(1, 0, "/j/1", 1 << 16)]),
    }
    for text, (meta, files) in cases.items():
        assert text in str(objection(meta, files)), text


def test_a_segment_that_it_lists_and_that_is_gone_is_damage_with_its_range() -> None:
    [hole] = missing_segments(META, FILES[1:])
    assert (hole.first_index, hole.last_index, hole.segment, hole.reason) == (10, 19, 1, "segment missing")


def test_one_whose_words_are_no_utf_8_is_refused_and_not_an_exception() -> None:
    disk = VirtualDisk()
    writer = ChunkWriter(disk, f"/j/{checkpoint_name(5)}")
    writer.put(META_TAG, b"\x81\xa6reason\xa1\xff")
    writer.finish()
    restored = restore_newest(disk, "/j", [file(1)], None, Liveness())  # type: ignore[arg-type]
    assert restored.meta is None
    assert "cannot be understood" in restored.refused[0]
