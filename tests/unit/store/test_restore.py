"""Which checkpoint belongs to a folder, and which does not; recovery under faults is in tests/property."""

from random import Random

from msgspec.structs import replace

from patterns.wire.records import Position, Record, RecordKind
from zbroker.store.checkpoint import Meta, checkpoint_name, index_name
from zbroker.store.chunks import META as META_TAG
from zbroker.store.chunks import ChunkWriter
from zbroker.store.journal import FileJournal
from zbroker.store.listing import SegmentFile
from zbroker.store.liveness import Liveness
from zbroker.store.note import Note
from zbroker.store.restore import missing_segments, objection, restore_newest, start_of
from zbroker.store.segment import SegmentHeader, segment_name
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
    }
    for text, (meta, files) in cases.items():
        assert text in str(objection(meta, files)), text


def test_without_any_header_one_is_taken_unless_something_says_that_it_is_of_another_journal() -> None:
    files = [SegmentFile(1, 0, "/j/1", 1 << 16)]
    assert objection(META, files) is None
    assert objection(META, files, Note(UUID, 1, 1, 1, 1)) is None
    assert "another journal" in str(objection(META, files, Note(b"v" * 16, 1, 1, 1, 1)))
    assert "another journal" in str(objection(META, [SegmentFile(1, 0, "/j/1", 1 << 16, uuid=b"v" * 16)]))


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


class Engine:
    """Takes what it is shown."""

    def __init__(self) -> None:
        self.reindexed: list[int] = []

    def restore(self, chunks) -> bool:  # type: ignore[no-untyped-def]
        return True

    def index(self, body: bytes) -> bool:
        return True

    def reindex(self, record: Record, position: Position) -> None:
        self.reindexed.append(record.index)


def test_a_rotten_filler_does_not_hold_up_the_reading_of_a_segment_without_index() -> None:
    """What follows it is another filler, which bears the index of the record before both."""
    disk = VirtualDisk()
    for life in (1, 2):
        journal = FileJournal(
            disk, "/j", segment_bytes=64 << 10, random_bytes=Random(life).randbytes, wall_ms=lambda: 0
        )
        last = journal.open(lambda record, position: None).next_index
        for index in range(last, last + 5):
            place = journal.append(Record(index, RecordKind.APPEND, payload=b"x" * 100))
        journal.commit(0)
        journal.handle_timeout(10**6)  # the witness, behind the filler of the commit
        if life == 1:
            filler = place.offset + 192
            disk.crash()
    journal.begin_checkpoint()
    journal.end_checkpoint(10)
    while not any("checkpoint-" in name for name in disk.live):
        journal.handle_timeout(10**6)
    disk.crash()
    disk.live.pop(f"/j/{index_name(1)}", None)
    assert disk.content(f"/j/{segment_name(1)}")[filler : filler + 4] == b"ZBR1"
    disk.flip_bit(f"/j/{segment_name(1)}", filler)
    engine = Engine()
    journal = FileJournal(disk, "/j", segment_bytes=64 << 10, random_bytes=Random(3).randbytes, wall_ms=lambda: 0)
    journal.open(lambda record, position: None, engine)  # type: ignore[arg-type]
    assert engine.reindexed == [1, 2, 3, 4, 5]
