"""What FileJournal promises call by call; crashes by the hundred are in tests/property."""

import errno
from collections.abc import Iterable
from random import Random

import msgspec
import pytest

from patterns.io.journal import Journal
from patterns.wire.records import Opened, Position, Record, RecordKind
from zbroker.store.disk import FileSystem
from zbroker.store.faults import (
    EpochsSpent,
    FolderLocked,
    JournalFailed,
    JournalFull,
    NetworkFileSystem,
    NewerFormat,
    NotOurs,
    RecordDamaged,
    RecordTooLarge,
)
from zbroker.store.journal import LOOK_US, FileJournal
from zbroker.store.reader import RecordReader
from zbroker.store.segment import EPOCH_MAX, pack_header, segment_name, unpack_header
from zbroker.store.spares import FULL_RETRY_US
from zbroker.store.writer import WITNESS_DELAY_US
from zbroker.testing.disk import VirtualDisk

FOLDER = "/j"
FIRST = f"{FOLDER}/{segment_name(1)}"


def make(disk: VirtualDisk) -> FileJournal:
    random = Random(1)
    return FileJournal(disk, FOLDER, segment_bytes=64 << 10, random_bytes=random.randbytes, wall_ms=lambda: 0)


def opened(disk: VirtualDisk) -> tuple[FileJournal, Opened, list[Record]]:
    log: list[Record] = []
    journal = make(disk)
    result = journal.open(lambda record, position: log.append(record))
    return journal, result, log


def record(index: int, size: int = 100) -> Record:
    return Record(index, RecordKind.APPEND, 1, index, 1, b"c", bytes([index % 256]) * size)


def append(journal: FileJournal, first: int, count: int, size: int = 100) -> list[Position]:
    return [journal.append(record(index, size)) for index in range(first, first + count)]


def test_the_journal_satisfies_the_brokers_protocol() -> None:
    journal: Journal = make(VirtualDisk())
    assert journal.durable_index == 0


def test_a_fresh_folder_begins_at_index_one_and_epoch_one() -> None:
    _, result, log = opened(VirtualDisk())
    assert (result.next_index, result.epoch, result.damage, log) == (1, 1, [], [])


def test_append_touches_no_disk_and_commit_makes_all_durable() -> None:
    disk = VirtualDisk()
    journal, _, _ = opened(disk)
    before = dict(disk.calls)
    append(journal, 1, 3)
    assert disk.calls == before
    assert journal.durable_index == 0
    assert journal.commit(0) == 3 == journal.durable_index
    assert disk.calls["fdatasync"] == before["fdatasync"] + 1


def test_an_index_that_does_not_follow_is_our_own_fault() -> None:
    journal, _, _ = opened(VirtualDisk())
    with pytest.raises(AssertionError):
        journal.append(record(2))


def test_an_empty_commit_writes_nothing() -> None:
    disk = VirtualDisk()
    journal, _, _ = opened(disk)
    before = dict(disk.calls)
    assert journal.commit(0) == 0
    assert disk.calls == before


def test_big_appends_are_split_into_commits_of_bounded_size() -> None:
    disk = VirtualDisk()
    journal, _, _ = opened(disk)
    before = disk.calls["fdatasync"]
    append(journal, 1, 8, 3000)  # commits of an eighth of the segment: 8 KiB
    assert journal.commit(0) == 8
    assert disk.calls["fdatasync"] == before + 4


def test_a_record_reads_back_by_its_position_now_and_after_a_restart() -> None:
    disk = VirtualDisk()
    journal, _, _ = opened(disk)
    places = append(journal, 1, 30, 5000)  # several segments
    journal.commit(0)
    journal.close()
    journal, result, log = opened(disk)
    assert log == [record(index, 5000) for index in range(1, 31)]
    assert RecordReader(disk, FOLDER).read(places) == log
    assert result.next_index == 31


def test_a_record_with_a_flipped_bit_is_not_read() -> None:
    disk = VirtualDisk()
    journal, _, _ = opened(disk)
    place = append(journal, 1, 1)[0]
    journal.commit(0)
    disk.flip_bit(FIRST, place.offset + place.size - 1)
    [found] = RecordReader(disk, FOLDER).read([place])
    assert isinstance(found, RecordDamaged)
    assert "CRC" in str(found)


def test_a_record_that_fits_no_segment_is_refused_and_nothing_is_taken() -> None:
    journal, _, _ = opened(VirtualDisk())
    with pytest.raises(RecordTooLarge):
        journal.append(record(1, 64 << 10))
    append(journal, 1, 1)
    assert journal.commit(0) == 1


def test_the_largest_record_fits() -> None:
    disk = VirtualDisk()
    journal, _, _ = opened(disk)
    size = (64 << 10) - 2 * 4096 - 64 - 4 - 1
    append(journal, 1, 3, size)
    assert journal.commit(0) == 3
    journal.close()
    assert opened(disk)[1].next_index == 4


def test_a_held_folder_is_refused_until_its_holder_is_gone() -> None:
    disk = VirtualDisk()
    opened(disk)
    with pytest.raises(FolderLocked, match=FOLDER):
        opened(disk)
    disk.crash()
    assert opened(disk)[1].epoch == 2


def test_a_foreign_folder_is_refused_untouched() -> None:
    disk = VirtualDisk()
    disk.open(f"{FOLDER}/thesis.tex", create=True)
    with pytest.raises(NotOurs, match=r"thesis\.tex"):
        opened(disk)
    assert list(disk.live) == [f"{FOLDER}/thesis.tex"]


def test_a_newer_format_is_refused() -> None:
    disk = VirtualDisk()
    journal, _, _ = opened(disk)
    journal.close()
    header = unpack_header(disk.content(FIRST)[:4096])
    assert header is not None
    header = type(header)(**{**{f: getattr(header, f) for f in header.__struct_fields__}, "reader_min": 4})
    handle = disk.open(FIRST)
    disk.pwrite(handle, pack_header(header)[0], 0)
    with pytest.raises(NewerFormat, match="format 4"):
        opened(disk)


@pytest.mark.parametrize("epoch", [EPOCH_MAX - 1, EPOCH_MAX])
def test_an_epoch_of_which_no_ids_can_be_made_is_refused_before_anything_is_written(epoch: int) -> None:
    disk = VirtualDisk()
    opened(disk)[0].close()
    handle = disk.open(FIRST)
    header = unpack_header(disk.pread(handle, 4096, 0))
    assert header is not None
    block, _ = pack_header(msgspec.structs.replace(header, epoch=epoch))
    disk.pwrite(handle, block, 0)
    before = disk.listdir(FOLDER)
    if epoch < EPOCH_MAX:
        assert opened(disk)[1].epoch == EPOCH_MAX
    else:
        with pytest.raises(EpochsSpent, match="segment 2 and epoch 2097152, at most 2097151; nothing was changed"):
            opened(disk)
        assert disk.listdir(FOLDER) == before


def test_a_network_file_system_is_refused_unless_allowed() -> None:
    disk = VirtualDisk()
    disk.kind = FileSystem("nfs4", True, [])
    with pytest.raises(NetworkFileSystem, match="nfs4"):
        opened(disk)
    journal = FileJournal(disk, FOLDER, random_bytes=Random(1).randbytes, wall_ms=lambda: 0, network_allowed=True)
    journal.open(lambda record, position: None)
    assert journal.status()["file_system"] == "nfs4"


@pytest.mark.parametrize("call", ["fdatasync", "pwritev", "fsync", "fsync_dir"])
def test_a_failing_disk_fails_the_journal_for_ever(call: str) -> None:
    disk = VirtualDisk()
    journal, _, _ = opened(disk)
    disk.fail(call, errno.EIO)
    append(journal, 1, 10, 5000)
    with pytest.raises(JournalFailed, match=FOLDER):
        journal.commit(0)
    for attempt in (lambda: journal.commit(1), lambda: append(journal, 11, 1)):
        with pytest.raises(JournalFailed):
            attempt()
    assert journal.next_timeout() is None
    assert journal.status()["failed"]
    journal.close()
    assert not disk._handles


@pytest.mark.parametrize("call", ["fdatasync", "pwritev", "fsync", "fsync_dir", "fallocate", "listdir"])
@pytest.mark.parametrize("countdown", [1, 2, 3])
def test_whatever_fails_while_opening_or_rolling_every_handle_is_closed_once(call: str, countdown: int) -> None:
    disk = VirtualDisk()
    disk.fail(call, errno.EIO, countdown)
    journal = make(disk)
    try:
        journal.open(lambda record, position: None)
        append(journal, 1, 20, 5000)
        journal.commit(0)
    except (JournalFailed, OSError):
        pass
    journal.close()
    assert not disk._handles


def test_after_a_failed_sync_the_next_open_believes_the_platter_and_not_the_cache() -> None:
    disk = VirtualDisk()
    journal, _, _ = opened(disk)
    append(journal, 1, 1)
    journal.commit(0)
    append(journal, 2, 1)
    disk.fail("fdatasync", errno.EIO)
    with pytest.raises(JournalFailed):
        journal.commit(1)
    disk.crash()
    _, result, log = opened(disk)
    assert (result.next_index, log, result.damage) == (2, [record(1)], [])


def test_the_next_segment_is_made_before_half_of_the_current_one_is_used() -> None:
    disk = VirtualDisk()
    journal, _, _ = opened(disk)
    used = 0
    while f"{FOLDER}/{segment_name(2)}" not in disk.live:
        place = journal.append(record(journal.durable_index + 1, 2000))
        journal.commit(0)
        used = place.offset + place.size
    assert used < (64 << 10) // 2


def test_full_is_told_early_operations_still_fit_and_it_heals() -> None:
    disk = VirtualDisk()
    journal, _, _ = opened(disk)
    disk.free_bytes = 0
    append(journal, 1, 6, 3000)
    assert journal.commit(10) == 6
    assert journal.full
    append(journal, 7, 10, 1000)
    assert journal.commit(20) == 16
    with pytest.raises(JournalFull, match="No space"):
        append(journal, 17, 30, 3000)
    taken = journal.commit(30)
    disk.free_bytes = None
    due = journal.next_timeout()
    assert due is not None
    journal.handle_timeout(FULL_RETRY_US + 10)
    assert not journal.full
    append(journal, taken + 1, 30, 3000)
    assert journal.commit(40) == taken + 30


def test_records_that_outran_the_space_wait_and_are_written_when_it_heals() -> None:
    disk = VirtualDisk()
    journal, _, _ = opened(disk)
    disk.free_bytes = 0
    append(journal, 1, 30, 3000)  # more than the segment holds, before anybody could know of the full disk
    durable = journal.commit(0)
    assert 0 < durable < 30
    disk.free_bytes = None
    journal.handle_timeout(FULL_RETRY_US)
    assert journal.durable_index == 30
    journal.close()
    assert len(opened(disk)[2]) == 30


def test_a_witness_follows_five_milliseconds_after_the_last_sync_and_once() -> None:
    disk = VirtualDisk()
    journal, _, _ = opened(disk)
    journal.handle_timeout(100)
    assert journal.next_timeout() == 100 + LOOK_US
    append(journal, 1, 1)
    journal.commit(100)
    assert journal.next_timeout() == 100 + WITNESS_DELAY_US
    syncs = disk.calls["fdatasync"]
    journal.handle_timeout(100)
    assert disk.calls["fdatasync"] == syncs
    journal.handle_timeout(100 + WITNESS_DELAY_US)
    assert disk.calls["fdatasync"] == syncs + 1
    assert journal.next_timeout() == 100 + LOOK_US


CHANGES = {
    "moved": (("LOCK", "0000000001-0000.seg"), "removed, moved away or replaced"),
    "without LOCK": (("LOCK",), "LOCK was removed"),
    "without its segment": (("0000000001-0000.seg",), "0000000001-0000.seg was removed"),
}


@pytest.mark.parametrize(("names", "text"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("is_replaced", [False, True])
def test_nothing_is_confirmed_once_the_folder_is_another(names: tuple[str], text: str, is_replaced: bool) -> None:
    disk = VirtualDisk()
    journal, _, _ = opened(disk)
    append(journal, 1, 1)
    assert journal.commit(0) == 1
    for name in names:
        disk.remove(f"{FOLDER}/{name}")
        if is_replaced:
            disk.close(disk.open(f"{FOLDER}/{name}", create=True))
    append(journal, 2, 1)
    with pytest.raises(JournalFailed, match=text):
        journal.commit(1)
    with pytest.raises(JournalFailed, match="Put back what was there"):
        append(journal, 3, 1)
    assert text in str(journal.status()["failed"])


def test_a_segment_that_is_cut_under_the_journal_ends_its_life() -> None:
    disk = VirtualDisk()
    journal, _, _ = opened(disk)
    disk.cut(FIRST, 8192)
    append(journal, 1, 1)
    with pytest.raises(JournalFailed, match="was cut to"):
        journal.commit(0)


def test_an_idle_journal_looks_at_its_folder_once_a_second() -> None:
    disk = VirtualDisk()
    journal, _, _ = opened(disk)
    assert journal.next_timeout() == 0
    journal.handle_timeout(5)
    disk.remove(f"{FOLDER}/LOCK")
    journal.handle_timeout(4 + LOOK_US)
    assert journal.next_timeout() == 5 + LOOK_US
    with pytest.raises(JournalFailed, match="LOCK was removed"):
        journal.handle_timeout(5 + LOOK_US)
    assert journal.next_timeout() is None


def test_a_second_journal_is_refused_though_lock_was_removed() -> None:
    disk = VirtualDisk()
    journal, _, _ = opened(disk)
    append(journal, 1, 40, 3000)
    journal.commit(0)  # so that the newest segment is not the first
    disk.remove(f"{FOLDER}/LOCK")
    before = {path: disk.content(path) for path in disk.live}
    with pytest.raises(FolderLocked):
        opened(disk)
    disk.remove(f"{FOLDER}/LOCK")
    assert {path: disk.content(path) for path in disk.live if path in before} == {
        path: content for path, content in before.items() if path in disk.live
    }
    journal.close()
    opened(disk)


@pytest.mark.parametrize("at", [20, 70])
@pytest.mark.parametrize("is_witnessed", [False, True])
def test_rot_in_the_last_commit_is_told_from_a_tear_by_the_witness(is_witnessed: bool, at: int) -> None:
    disk = VirtualDisk()
    journal, _, _ = opened(disk)
    append(journal, 1, 1)
    place = append(journal, 2, 1)[0]
    journal.commit(0)
    if is_witnessed:
        journal.handle_timeout(WITNESS_DELAY_US)
    disk.crash()
    disk.flip_bit(FIRST, place.offset + at)
    _, result, _ = opened(disk)
    assert [hole.first_index for hole in result.damage] == ([2] if is_witnessed else [])
    assert (result.torn_bytes > 0) == (not is_witnessed)


def test_restarts_without_records_leave_no_files_behind() -> None:
    disk = VirtualDisk()
    epochs = []
    for _ in range(5):
        journal, result, _ = opened(disk)
        epochs.append(result.epoch)
        journal.close()
    assert epochs == [1, 2, 3, 4, 5]
    assert sum(name.endswith(".seg") for name in disk.live) == 1


def test_lives_that_end_soon_bring_a_checkpoint_from_which_the_next_start_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else each start reads one more segment to its end: 7 s and 4 GB after sixty kills, for 1,500 records."""
    monkeypatch.setattr("zbroker.store.checkpoint.SCANNED_BYTES", 4 * (64 << 10))
    disk, due = VirtualDisk(), []
    for life in range(1, 8):
        journal = make(disk)
        opened = journal.open(lambda record, position: None, _Trusting())
        append(journal, opened.next_index, 1)
        journal.commit(0)
        due.append(journal.checkpoint_due)
        if due[-1]:
            journal.begin_checkpoint()
            journal.end_checkpoint(life)
            while journal._checkpoints.is_writing:
                journal.handle_timeout(0)
        disk.crash()
    assert due == [False] * 4 + [True] + [False] * 2
    assert opened.records == 1, "what is behind the checkpoint"


class _Trusting:
    """An engine that takes what it is given."""

    def restore(self, chunks: Iterable[bytes]) -> bool:
        return True

    def index(self, chunk: bytes) -> bool:
        return True

    def reindex(self, record: Record, position: Position) -> None:
        pass


def test_status_tells_size_syncs_and_warnings() -> None:
    disk = VirtualDisk()
    disk.kind = FileSystem("overlay", False, ["it vanishes"])
    journal, _, _ = opened(disk)
    append(journal, 1, 1)
    journal.commit(0)
    status = journal.status()
    assert (status["syncs"], status["last_sync_us"], status["sync_p99_us"]) == (2, 100, 100)
    assert len(str(status["uuid"])) == 32
    assert (status["bytes"], status["segments"], status["warnings"]) == (64 << 10, 1, ["it vanishes"])
