"""A journal's folder as such: whose it is, who holds it, and whether a journal may live there. FORMAT.md 1."""

import errno

from zbroker.store.disk import Disk, FileSystem
from zbroker.store.faults import FolderLocked, FolderUnusable, LocksUnsupported, NetworkFileSystem, NotOurs
from zbroker.store.segment import parse_name

LOCK_NAME = "LOCK"
CHECKPOINT_PREFIX = "checkpoint-"
OUR_PREFIXES = (LOCK_NAME, CHECKPOINT_PREFIX, "ballast", "lost+found")  # lost+found: the root of a mount
TAIL_SEGMENTS = 3  # the prepared, the last and the one before may hold what a failed sync left in the cache
WITHOUT_LOCKS = frozenset([errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
UNWRITABLE = frozenset([errno.EROFS, errno.EACCES, errno.EPERM])


def take_folder(disk: Disk, folder: str, *, network_allowed: bool) -> tuple[int, FileSystem]:
    """Make the folder if it is absent, and be its one writer; returns the lock's handle and what lies under it.

    Raises:
        FolderLocked, NotOurs, NetworkFileSystem, LocksUnsupported, FolderUnusable: nothing was changed.
    """
    try:
        disk.make_folder(folder)
    except OSError as error:
        raise FolderUnusable(folder, f"cannot be made ({error.strerror})") from error
    file_system = disk.file_system(folder)
    if file_system.is_network and not network_allowed:
        raise NetworkFileSystem(folder, file_system.kind)
    _require_ours(disk, folder)
    try:
        handle = disk.open(f"{folder}/{LOCK_NAME}", create=True)
    except OSError as error:
        if error.errno in UNWRITABLE:
            raise FolderUnusable(folder, f"cannot be written to ({error.strerror})") from error
        raise
    return _locked(disk, folder, handle), file_system


def hold_for_reading(disk: Disk, folder: str) -> int | None:
    """Keep writers out of a folder while it is looked at; None when it has no LOCK, and so no writer.

    Raises:
        FolderLocked: a broker runs on it.
        FolderUnusable, LocksUnsupported: there is nothing to look at, or no way to.
    """
    try:
        names = disk.listdir(folder)
        if not any(parse_name(name) for name in names):
            raise FolderUnusable(folder, "has no journal in it")
        if LOCK_NAME not in names:
            return None
        handle = disk.open(f"{folder}/{LOCK_NAME}")
    except OSError as error:
        raise FolderUnusable(folder, f"cannot be read ({error.strerror})") from error
    return _locked(disk, folder, handle)


def _require_ours(disk: Disk, folder: str) -> None:
    try:
        names = sorted(disk.listdir(folder))
    except PermissionError as error:
        raise FolderUnusable(folder, f"cannot be read ({error.strerror})") from error
    if not any(parse_name(name) for name in names):
        foreign = [name for name in names if not name.startswith(OUR_PREFIXES)]
        if foreign:
            raise NotOurs(folder, f"has no journal in it, but other files such as {foreign[0]}")


def _locked(disk: Disk, folder: str, handle: int) -> int:
    try:
        if disk.lock(handle):
            return handle
    except OSError as error:
        disk.close(handle)
        if error.errno in WITHOUT_LOCKS:
            raise LocksUnsupported(folder, str(error.strerror)) from error
        raise
    disk.close(handle)
    raise FolderLocked(folder)


def settle_tail(disk: Disk, folder: str) -> None:
    """Make the platter and what we read one before anything is decided by it.

    A life that ended by a failed sync may have left pages that look written, marked clean: syncing alone
    would not write them again. So sync, forget, and read from the platter.
    """
    names = sorted(name for name in disk.listdir(folder) if parse_name(name))
    for name in names[-TAIL_SEGMENTS:]:
        handle = disk.open(f"{folder}/{name}")
        try:
            disk.fdatasync(handle)
            disk.drop_cache(handle)
        finally:
            disk.close(handle)
    disk.fsync_dir(folder)
