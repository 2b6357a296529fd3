"""The real disk behind the protocol; the file systems' own promises are in tests/crash."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from patterns.wire.records import Record, RecordKind
from zbroker.store.disk import Disk
from zbroker.store.faults import FolderLocked
from zbroker.store.journal import FileJournal
from zbroker.store.os_disk import IOV_MAX, OsDisk, kind_of_mount
from zbroker.store.reader import RecordReader

MOUNTS = "/dev/a / ext4 rw 0 0\nnone /tmp tmpfs rw 0 0\nh:/x /mnt/my\\040data nfs4 rw 0 0\n"


def test_it_satisfies_the_protocol() -> None:
    disk: Disk = OsDisk()
    assert disk.listdir("/proc/self")


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/var/j", "ext4"), ("/tmp/j", "tmpfs"), ("/tmpfoo", "ext4"), ("/mnt/my data/j", "nfs4"), ("/", "ext4")],
)
def test_the_longest_mount_point_above_a_path_decides(path: str, kind: str) -> None:
    assert kind_of_mount(path, MOUNTS) == kind


def test_a_lock_holds_against_another_opening_of_the_same_file(tmp_path: Path) -> None:
    disk = OsDisk()
    first, second = (disk.open(str(tmp_path / "LOCK"), create=True) for _ in range(2))
    assert disk.lock(first)
    assert not disk.lock(second)
    disk.close(first)
    assert disk.lock(second)
    disk.close(second)


def test_a_lock_outlives_the_closing_of_another_handle(tmp_path: Path) -> None:
    disk = OsDisk()
    path = str(tmp_path / "LOCK")
    held = disk.open(path, create=True)
    assert disk.lock(held)
    disk.close(disk.open(path))  # a POSIX lock would be gone now
    other = disk.open(path)
    assert not disk.lock(other)


def test_allocated_bytes_read_as_zeros_and_what_was_written_stays(tmp_path: Path) -> None:
    disk = OsDisk()
    handle = disk.open(str(tmp_path / "f"), create=True)
    assert disk.pwritev(handle, [b"ab", b"", b"c"], 0) == 3
    disk.fallocate(handle, 8192)
    assert disk.size(handle) == 8192
    assert disk.pread(handle, 9000, 0) == b"abc" + bytes(8189)
    assert disk.fdatasync(handle) >= 0
    disk.drop_cache(handle)
    assert disk.pread(handle, 3, 0) == b"abc"


def test_more_parts_than_the_system_takes_are_written_short(tmp_path: Path) -> None:
    disk = OsDisk()
    handle = disk.open(str(tmp_path / "f"), create=True)
    assert disk.pwritev(handle, [b"x"] * (IOV_MAX + 5), 0) == IOV_MAX


def test_names_come_and_go(tmp_path: Path) -> None:
    disk = OsDisk()
    folder = str(tmp_path / "deep" / "er")
    disk.make_folder(folder)
    disk.make_folder(folder)
    assert os.stat(folder).st_mode & 0o077 == 0
    disk.close(disk.open(f"{folder}/a", create=True))
    disk.link(f"{folder}/a", f"{folder}/b")
    disk.rename(f"{folder}/a", f"{folder}/c")
    disk.unlink(f"{folder}/b")
    disk.fsync_dir(folder)
    assert disk.listdir(folder) == ["c"]


def test_a_journal_on_a_real_disk_survives_its_restart(tmp_path: Path) -> None:
    def make() -> FileJournal:
        return FileJournal(
            OsDisk(), str(tmp_path / "j"), segment_bytes=1 << 20, random_bytes=os.urandom, wall_ms=lambda: 0
        )

    log: list[Record] = []
    records = [Record(index, RecordKind.APPEND, 1, index, 1, b"c", b"x" * 50_000) for index in range(1, 60)]
    journal = make()
    journal.open(lambda record, position: None)
    places = [journal.append(record) for record in records]
    assert journal.commit(0) == 59
    reader = RecordReader(OsDisk(read_only=True), str(tmp_path / "j"))
    assert reader.read(places) == records
    reader.close()
    with pytest.raises(FolderLocked):
        make().open(lambda record, position: None)
    journal.close()
    opened = make().open(lambda record, position: log.append(record))
    assert (log, opened.epoch) == (records, 2)


def test_a_path_has_the_size_of_a_file_while_it_leads_to_it(tmp_path: Path) -> None:
    disk, path = OsDisk(), str(tmp_path / "folder" / "file")
    disk.make_folder(str(tmp_path / "folder"))
    handle = disk.open(path, create=True)
    assert disk.size_at(path, handle) == 0
    disk.pwrite(handle, b"abc", 0)
    assert disk.size_at(path, handle) == 3
    disk.rename(path, f"{path}.away")
    assert disk.size_at(path, handle) is None
    disk.close(disk.open(path, create=True))
    assert disk.size_at(path, handle) is None
    disk.rename(f"{path}.away", path)
    assert disk.size_at(path, handle) == 3
    (tmp_path / "folder").rename(tmp_path / "elsewhere")
    assert disk.size_at(path, handle) is None
    (tmp_path / "folder").touch()
    assert disk.size_at(path, handle) is None
    disk.close(handle)


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)], ids=["fifo", "device"])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(
    make: Callable[[str], None], read_only: bool, tmp_path: Path
) -> None:
    path = str(tmp_path / "0000000001-0000.seg")
    make(path)
    with pytest.raises(OSError, match="is no regular file"):
        OsDisk(read_only=read_only).open(path, create=not read_only)
