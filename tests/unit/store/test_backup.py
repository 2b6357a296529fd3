"""A backup is a folder that a broker could have left; made while one writes, it is whole all the same."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from patterns.wire.records import Position, Record, RecordKind
from tests.unit.store.halved import Halved
from zbroker.store.backup import TRIES_MAX, UNFINISHED, _Copying, back_up
from zbroker.store.faults import BackupFailed, FolderUnusable
from zbroker.store.journal import FileJournal
from zbroker.store.os_disk import OsDisk
from zbroker.store.segment import segment_name
from zbroker.store.verify import verify_folder

SEGMENT_BYTES = 64 << 10


def journal_in(folder: Path) -> FileJournal:
    return FileJournal(OsDisk(), str(folder), segment_bytes=SEGMENT_BYTES, random_bytes=os.urandom, wall_ms=lambda: 0)


def record(index: int) -> Record:
    return Record(index, RecordKind.APPEND, 1, index, 1, b"", index.to_bytes(4, "big") * 300)


def grow(journal: FileJournal, first: int, count: int) -> None:
    for index in range(first, first + count):
        journal.append(record(index))
        journal.commit(0)


def read(folder: Path) -> list[Record]:
    found: list[Record] = []
    journal = journal_in(folder)
    journal.open(lambda record, position: found.append(record))
    journal.close()
    return found


def test_full_segments_are_links_and_the_newest_is_a_copy(tmp_path: Path) -> None:
    source, target = tmp_path / "data", tmp_path / "backup"
    journal = journal_in(source)
    journal.open(lambda record, position: None)
    grow(journal, 1, 100)
    made = back_up(OsDisk(), str(source), str(target))
    grow(journal, 101, 100)
    journal.close()
    names = sorted(path.name for path in target.glob("*.seg"))
    assert made.linked == len(names) - 1
    assert [(source / name).samefile(target / name) for name in names] == [True] * made.linked + [False]
    assert made.next_index == 101
    assert verify_folder(OsDisk(), str(target)).is_whole
    assert read(target) == [record(index) for index in range(1, 101)]
    assert read(source) == [record(index) for index in range(1, 201)], "what a broker does to a backup stays there"


def test_backups_of_a_folder_that_is_written_to_are_whole_and_hold_all_that_was_confirmed(tmp_path: Path) -> None:
    source = tmp_path / "data"
    journal = journal_in(source)
    journal.open(lambda record, position: None)
    stop = threading.Event()

    def write() -> None:
        index = 1
        while not stop.is_set() and index < 3_000:
            grow(journal, index, 1)
            index += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(8):
            confirmed = journal.durable_index
            target = tmp_path / f"backup-{number}"
            made = back_up(OsDisk(), str(source), str(target))
            assert made.next_index > confirmed
            report = verify_folder(OsDisk(), str(target))
            assert report.is_whole, report.damage
            assert report.next_index == made.next_index
    finally:
        stop.set()
        writer.join()
        journal.close()


def test_damage_is_carried_over_and_what_follows_it_too(tmp_path: Path) -> None:
    source, target = tmp_path / "data", tmp_path / "backup"
    journal = journal_in(source)
    places: list[Position] = []
    journal.open(lambda record, position: None)
    for index in range(1, 11):
        places.append(journal.append(record(index)))
        journal.commit(0)
    journal.close()
    with (source / "0000000001-0000.seg").open("r+b") as file:
        file.seek(places[4].offset + 20)
        file.write(b"rotten")
    back_up(OsDisk(), str(source), str(target))
    report = verify_folder(OsDisk(), str(target))
    assert [(hole.first_index, hole.last_index) for hole in report.damage] == [(5, 5)]
    assert report.next_index == 11


def test_without_hard_links_files_are_copied(tmp_path: Path) -> None:
    class WithoutLinks(OsDisk):
        def link(self, old: str, new: str) -> None:
            raise OSError(errno.EXDEV, "another file system")

    source, target = tmp_path / "data", tmp_path / "backup"
    journal = journal_in(source)
    journal.open(lambda record, position: None)
    grow(journal, 1, 100)
    journal.close()
    made = back_up(WithoutLinks(), str(source), str(target))
    assert made.linked == 0
    assert made.copied > 2
    assert read(target) == [record(index) for index in range(1, 101)]


class Elsewhere(OsDisk):
    """A target on another file system; `begun` is called once, when the first file is copied to it."""

    def __init__(self, begun: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.begun = begun
        self.opened: list[str] = []

    def link(self, old: str, new: str) -> None:
        raise OSError(errno.EXDEV, "another file system")

    def open(self, path: str, create: bool = False) -> int:
        self.opened.append(path)
        begun, self.begun = self.begun, lambda: None
        begun()
        return super().open(path, create)


def test_what_is_given_back_while_it_is_copied_is_in_the_backup_all_the_same(tmp_path: Path) -> None:
    source, target = tmp_path / "data", tmp_path / "backup"
    journal = journal_in(source)
    journal.open(lambda record, position: None)
    grow(journal, 1, 100)
    full = sorted(source.glob("*.seg"))[:-1]
    assert len(full) > 1

    def give_back() -> None:
        for path in full:
            path.unlink()

    made = back_up(Elsewhere(give_back), str(source), str(target), source=OsDisk(read_only=True))
    journal.close()
    assert made.copied > len(full)
    assert read(target) == [record(index) for index in range(1, 101)]


@pytest.mark.parametrize("overtaken", [1, TRIES_MAX])
def test_a_backup_that_the_broker_overtakes_is_begun_anew_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overtaken: int
) -> None:
    journal = journal_in(tmp_path / "data")
    journal.open(lambda record, position: None)
    grow(journal, 1, 3)
    tries = 0
    took_all = _Copying._took_all

    def overtakes(self: _Copying, checkpoints: list[str]) -> bool:
        nonlocal tries
        tries += 1
        return tries > overtaken and took_all(self, checkpoints)

    monkeypatch.setattr(_Copying, "_took_all", overtakes)
    target = tmp_path / "backup"
    if overtaken < TRIES_MAX:
        assert back_up(OsDisk(), str(tmp_path / "data"), str(target)).next_index == 4
        assert read(target) == [record(index) for index in (1, 2, 3)]
    else:
        with pytest.raises(BackupFailed, match="5 times; try again"):
            back_up(OsDisk(), str(tmp_path / "data"), str(target))
        assert not target.exists()
    assert not Path(f"{target}{UNFINISHED}").exists()
    journal.close()


def test_a_folder_is_only_read_so_it_may_be_on_a_read_only_file_system(tmp_path: Path) -> None:
    source, target = tmp_path / "data", tmp_path / "backup"
    journal = journal_in(source)
    journal.open(lambda record, position: None)
    grow(journal, 1, 100)
    journal.close()
    writing = Elsewhere()
    back_up(writing, str(source), str(target), source=OsDisk(read_only=True))
    assert {Path(path).parent.name for path in writing.opened} == {f"backup{UNFINISHED}"}
    assert len(read(target)) == 100


def test_no_more_files_are_held_than_the_system_allows(tmp_path: Path) -> None:
    source, target = tmp_path / "data", tmp_path / "backup"

    class Few(OsDisk):
        def open(self, path: str, create: bool = False) -> int:
            if len(self._inodes) == 2:
                raise OSError(errno.EMFILE, "Too many open files")
            return super().open(path, create)

    journal = journal_in(source)
    journal.open(lambda record, position: None)
    grow(journal, 1, 300)
    journal.close()
    assert len(list(source.glob("*.seg"))) > 5
    few = Few(read_only=True)
    back_up(Elsewhere(), str(source), str(target), source=few)
    assert not few._inodes, "none is left open"
    assert len(read(target)) == 300


def test_a_target_that_is_there_or_what_broke_off_is_refused(tmp_path: Path) -> None:
    source, target = tmp_path / "data", tmp_path / "backup"
    journal = journal_in(source)
    journal.open(lambda record, position: None)
    journal.close()
    draft = tmp_path / f"backup{UNFINISHED}"
    draft.mkdir()
    with pytest.raises(BackupFailed, match="or was killed"):
        back_up(OsDisk(), str(source), str(target))
    draft.rmdir()
    target.mkdir()
    with pytest.raises(BackupFailed, match="there already"):
        back_up(OsDisk(), str(source), str(target))


def test_a_backup_that_breaks_off_leaves_nothing_and_can_be_made_again(tmp_path: Path) -> None:
    source, target = tmp_path / "data", tmp_path / "backup"
    journal = journal_in(source)
    journal.open(lambda record, position: None)
    grow(journal, 1, 100)
    journal.close()

    class Full(OsDisk):
        def fallocate(self, handle: int, length: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(BackupFailed, match=r"backup .*backup was not made: No space left on device"):
        back_up(Full(), str(source), str(target))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    back_up(OsDisk(), str(source), str(target))
    assert len(read(target)) == 100


def test_a_backup_that_is_interrupted_as_it_begins_leaves_nothing(tmp_path: Path) -> None:
    source, target = tmp_path / "data", tmp_path / "backup"
    journal = journal_in(source)
    journal.open(lambda record, position: None)
    grow(journal, 1, 1)
    journal.close()

    class Interrupted(OsDisk):
        def make_folder(self, path: str) -> None:
            super().make_folder(path)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_up(Interrupted(), str(source), str(target))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_without_a_journal_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    source, target = tmp_path / "data", tmp_path / "backup"
    with pytest.raises(FolderUnusable, match=r"data cannot be read \(No such file or directory\).*Check its path"):
        back_up(OsDisk(), str(source), str(target))
    source.mkdir()
    with pytest.raises(FolderUnusable, match="no journal"):
        back_up(OsDisk(), str(source), str(target))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_backup_keeps_the_old_file_of_a_segment_and_one_made_during_a_compaction_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every step of it."""
    source = tmp_path / "data"
    world = Halved(monkeypatch, str(source), OsDisk())
    world.fill()
    world.forget()
    steps = 0
    while world.tidy(1) and steps < 40:
        steps += 1
        target = tmp_path / f"backup{steps}"
        back_up(OsDisk(), str(source), str(target))
        report = verify_folder(OsDisk(), str(target))
        assert report.is_whole, report
    assert (1, 1) in world.segments
    assert (tmp_path / "backup1" / segment_name(1)).exists(), "links keep what was compacted since"
    world.journal.close()


def test_a_segment_that_is_compacted_between_two_looks_is_taken_as_it_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "data", tmp_path / "backup"
    world = Halved(monkeypatch, str(source), OsDisk())
    world.fill()
    world.forget()
    link = OsDisk.link

    def late(self: OsDisk, old: str, new: str) -> None:
        if old.endswith(segment_name(1)):
            world.tidy()
        link(self, old, new)

    monkeypatch.setattr(OsDisk, "link", late)
    back_up(OsDisk(), str(source), str(target))
    assert (target / segment_name(1, 1)).exists()
    assert verify_folder(OsDisk(), str(target)).is_whole
    world.journal.close()


def test_a_segment_that_is_missing_is_missing_in_a_backup_as_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    world = Halved(monkeypatch, str(source), OsDisk())
    world.fill()
    world.journal.close()
    (source / segment_name(1)).unlink()
    back_up(OsDisk(), str(source), str(target))
    assert [hole.segment for hole in verify_folder(OsDisk(read_only=True), str(target)).damage] == [1]
