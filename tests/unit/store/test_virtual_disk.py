"""The disk that the others are tested with must itself lose what a real one may lose, and keep what it must."""

import errno
from random import Random

import pytest

from zbroker.store.disk import Disk
from zbroker.testing.disk import PowerCut, VirtualDisk


def disk_with(path: str, data: bytes) -> tuple[VirtualDisk, int]:
    disk = VirtualDisk()
    handle = disk.open(path, create=True)
    disk.pwrite(handle, data, 0)
    return disk, handle


def after_power_cut(is_file_synced: bool, is_folder_synced: bool) -> set[bytes | None]:
    outcomes: set[bytes | None] = set()
    for seed in range(60):
        disk, handle = disk_with("/d/f", b"ab".ljust(512, b".") + b"c")
        if is_file_synced:
            disk.fdatasync(handle)
        if is_folder_synced:
            disk.fsync_dir("/d")
        disk.power_cut(Random(seed))
        outcomes.add(disk.content("/d/f")[:1] if "/d/f" in disk.live else None)
    return outcomes


def test_it_satisfies_the_protocol() -> None:
    disk: Disk = VirtualDisk()
    assert disk.listdir("/") == []


def test_only_what_was_synced_with_its_name_survives_every_power_cut() -> None:
    assert after_power_cut(True, True) == {b"a"}
    assert None in after_power_cut(True, False)
    assert len(after_power_cut(False, True)) > 1


def test_a_process_crash_keeps_what_was_written_and_drops_handles_and_locks() -> None:
    disk, handle = disk_with("/d/f", b"x")
    assert disk.lock(handle)
    disk.crash()
    assert disk.content("/d/f") == b"x"
    with pytest.raises(OSError, match="descriptor"):
        disk.size(handle)
    assert disk.lock(disk.open("/d/f"))


def test_sectors_survive_out_of_order() -> None:
    outcomes = set()
    for seed in range(100):
        disk, handle = disk_with("/d/f", bytes(1024))
        disk.fsync(handle)
        disk.fsync_dir("/d")
        disk.pwrite(handle, b"1" * 512, 0)
        disk.pwrite(handle, b"2" * 512, 512)
        disk.power_cut(Random(seed))
        outcomes.add((disk.content("/d/f")[0], disk.content("/d/f")[512]))
    assert outcomes == {(0, 0), (49, 0), (0, 50), (49, 50)}


def test_after_a_failed_sync_the_cache_lies_until_it_is_dropped() -> None:
    disk, handle = disk_with("/d/f", b"old")
    disk.fdatasync(handle)
    disk.pwrite(handle, b"new", 0)
    disk.fail("fdatasync", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        disk.fdatasync(handle)
    disk.fdatasync(handle)  # says all is well
    assert disk.pread(handle, 3, 0) == b"new"
    disk.drop_cache(handle)
    assert disk.pread(handle, 3, 0) == b"old"


def test_it_can_be_cut_in_the_middle_of_the_work() -> None:
    disk, handle = disk_with("/d/f", b"x")
    disk.cut_after = 1
    disk.fdatasync(handle)
    with pytest.raises(PowerCut):
        disk.fdatasync(handle)
