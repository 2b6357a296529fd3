"""Whose a folder is and who holds it; whatever is wrong with it, nothing in it changes."""

import errno
from pathlib import Path

import pytest

from zbroker.store.disk import FileSystem
from zbroker.store.faults import (
    FolderLocked,
    FolderUnusable,
    LocksUnsupported,
    NetworkFileSystem,
    NotOurs,
)
from zbroker.store.folder import hold_for_reading, take_folder
from zbroker.store.os_disk import OsDisk
from zbroker.store.segment import segment_name
from zbroker.testing.disk import VirtualDisk

FOLDER = "/j"


def disk_with(*names: str) -> VirtualDisk:
    disk = VirtualDisk()
    for name in names:
        disk.close(disk.open(f"{FOLDER}/{name}", create=True))
    return disk


def test_an_empty_folder_is_taken_once() -> None:
    disk = VirtualDisk()
    handle, file_system = take_folder(disk, FOLDER, network_allowed=False)
    assert file_system.kind == "virtual"
    with pytest.raises(FolderLocked):
        take_folder(disk, FOLDER, network_allowed=False)
    disk.close(handle)
    take_folder(disk, FOLDER, network_allowed=False)


def test_a_foreign_file_is_left_alone() -> None:
    disk = disk_with("thesis.txt")
    with pytest.raises(NotOurs, match=r"thesis\.txt"):
        take_folder(disk, FOLDER, network_allowed=False)
    assert set(disk.live) == {f"{FOLDER}/thesis.txt"}


def test_a_network_file_system_is_refused_unless_allowed() -> None:
    disk = VirtualDisk()
    disk.kind = FileSystem("nfs4", True, [])
    with pytest.raises(NetworkFileSystem):
        take_folder(disk, FOLDER, network_allowed=False)
    take_folder(disk, FOLDER, network_allowed=True)


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_to_is_named(code: int) -> None:
    disk = disk_with(segment_name(1))
    disk.fail("open", code)
    with pytest.raises(FolderUnusable, match="cannot be written to"):
        take_folder(disk, FOLDER, network_allowed=False)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused(code: int) -> None:
    disk = VirtualDisk()
    disk.fail("lock", code)
    with pytest.raises(LocksUnsupported, match="local file system"):
        take_folder(disk, FOLDER, network_allowed=False)


def test_who_looks_needs_a_journal_and_makes_no_lock_file() -> None:
    with pytest.raises(FolderUnusable, match="no journal"):
        hold_for_reading(disk_with("thesis.txt"), FOLDER)
    disk = disk_with(segment_name(1))
    assert hold_for_reading(disk, FOLDER) is None
    assert set(disk.live) == {f"{FOLDER}/{segment_name(1)}"}


def test_readers_share_a_folder_and_keep_a_writer_out(tmp_path: Path) -> None:
    folder = str(tmp_path)
    writer, reader = OsDisk(), OsDisk(read_only=True)
    (tmp_path / segment_name(1)).write_bytes(b"")
    handle, _ = take_folder(writer, folder, network_allowed=True)
    with pytest.raises(FolderLocked):
        hold_for_reading(reader, folder)
    writer.close(handle)
    held = [hold_for_reading(reader, folder), hold_for_reading(reader, folder)]
    with pytest.raises(FolderLocked):
        take_folder(writer, folder, network_allowed=True)
    for lock in held:
        assert lock is not None
        reader.close(lock)
    take_folder(writer, folder, network_allowed=True)


def test_who_only_reads_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    reader = OsDisk(read_only=True)
    handle = reader.open(str(tmp_path / "f"))
    assert reader.pread(handle, 1, 0) == b"x"
    with pytest.raises(OSError, match="descriptor"):
        reader.pwrite(handle, b"y", 0)


def test_who_looks_is_kept_out_by_a_writer_whose_lock_file_was_removed(tmp_path: Path) -> None:
    disk, path = OsDisk(), f"{tmp_path}/{segment_name(1)}"
    writer = disk.open(path, create=True)
    assert disk.lock(writer)
    with pytest.raises(FolderLocked):
        hold_for_reading(OsDisk(read_only=True), str(tmp_path))
    disk.close(writer)
    assert hold_for_reading(OsDisk(read_only=True), str(tmp_path)) is None


def test_a_lock_file_that_nobody_can_hold_is_not_left_behind() -> None:
    disk = disk_with(segment_name(1))
    disk.fail("lock", errno.ENOLCK)
    with pytest.raises(LocksUnsupported):
        take_folder(disk, FOLDER, network_allowed=False)
    assert set(disk.live) == {f"{FOLDER}/{segment_name(1)}"}
