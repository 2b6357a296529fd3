"""A journal's folder as such: whose it is, who holds it, and whether a journal may live there. FORMAT.md 1."""

import errno

from zbroker.store.disk import Disk, FileSystem
from zbroker.store.faults import FolderLocked, FolderUnusable, LocksUnsupported, NetworkFileSystem, NotOurs
from zbroker.store.listing import list_segments
from zbroker.store.segment import parse_name, segment_name

LOCK_NAME = "LOCK"
CHECKPOINT_PREFIX = "checkpoint-"
PRODUCERS_MARK = (
    "producer"  # an empty file: this is the journal of a producer, whose records say other things than a broker's
)
OUR_PREFIXES = (
    LOCK_NAME,
    CHECKPOINT_PREFIX,
    "ballast",
    PRODUCERS_MARK,
    "lost+found",
)  # lost+found: the root of a mount
TAIL_SEGMENTS = 3  # the prepared, the last and the one before may hold what a failed sync left in the cache
WITHOUT_LOCKS = frozenset([errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
UNWRITABLE = frozenset([errno.EROFS, errno.EACCES, errno.EPERM])


def take_folder(
    disk: Disk, folder: str, *, network_allowed: bool, is_producers: bool = False
) -> tuple[int, FileSystem]:
    """Make the folder if it is absent, and be its one writer; returns the lock's handle and what lies under it.

    Args:
        is_producers: its records are those of a producer's own journal, not of a broker's.

    Raises:
        FolderLocked, NotOurs, NewerFormat, NetworkFileSystem, LocksUnsupported, FolderUnusable: nothing was changed.
    """
    try:
        disk.make_folder(folder)
    except OSError as error:
        raise FolderUnusable(folder, f"cannot be made ({error.strerror})") from error
    file_system = disk.file_system(folder)
    if file_system.is_network and not network_allowed:
        raise NetworkFileSystem(folder, file_system.kind)
    names = _require_ours(disk, folder)
    is_new = LOCK_NAME not in names
    if is_producers != (PRODUCERS_MARK in names) and any(parse_name(name) for name in names):
        raise NotOurs(folder, f"is the journal of a {'broker' if is_producers else 'producer'}")
    try:
        if is_new:
            list_segments(disk, folder)  # what is refused is refused before anything is made in it
        handle = disk.open(f"{folder}/{LOCK_NAME}", create=True)
    except OSError as error:
        if error.errno in UNWRITABLE:
            raise FolderUnusable(folder, f"cannot be written to ({error.strerror})") from error
        raise
    try:
        lock = _locked(disk, folder, handle)
        if is_producers and PRODUCERS_MARK not in names:
            _mark(disk, folder)
        return lock, file_system
    except LocksUnsupported:
        if is_new:
            disk.unlink(f"{folder}/{LOCK_NAME}")  # nobody can hold it
        raise


def _mark(disk: Disk, folder: str) -> None:
    """Before the first segment: so a folder with segments and without the mark is a broker's."""
    disk.close(disk.open(f"{folder}/{PRODUCERS_MARK}", create=True))
    disk.fsync_dir(folder)


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
        for path in _tail(disk, folder):
            disk.close(_locked(disk, folder, disk.open(path)))  # a broker holds its newest one, whatever became of LOCK
        if LOCK_NAME not in names:
            return None
        handle = disk.open(f"{folder}/{LOCK_NAME}")
    except OSError as error:
        what = f"{error.filename} " if error.errno == errno.EINVAL and error.filename else ""  # is no regular file
        raise FolderUnusable(folder, f"cannot be read ({what}{error.strerror})") from error
    return _locked(disk, folder, handle)


def _require_ours(disk: Disk, folder: str) -> list[str]:
    try:
        names = sorted(disk.listdir(folder))
    except PermissionError as error:
        raise FolderUnusable(folder, f"cannot be read ({error.strerror})") from error
    if not any(parse_name(name) for name in names):
        foreign = [name for name in names if not name.startswith(OUR_PREFIXES)]
        if foreign:
            raise NotOurs(folder, f"has no journal in it, but other files such as {foreign[0]}")
    return names


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


class FolderChanged(OSError):
    """Names in the folder do not lead to the files any more that we write to: all that we write there, nobody will find."""


def require_unchanged(disk: Disk, folder: str, lock: int, number: int, handle: int, segment_bytes: int) -> None:
    """Look whether the folder is still the one that was taken, and the segment that is written to still in it, whole.

    Two calls, a few microseconds: before each confirm. Raises FolderChanged, and OSError if it cannot be looked at.
    """
    name = segment_name(number)
    held = disk.size_at(f"{folder}/{LOCK_NAME}", lock)
    size = disk.size_at(f"{folder}/{name}", handle)
    if held is None and size is None:
        raise FolderChanged("the folder was removed, moved away or replaced under the running broker")
    if held is None:
        raise FolderChanged(
            f"{LOCK_NAME} was removed or replaced under the running broker, so another may have begun beside it"
        )
    if size is None:
        raise FolderChanged(f"{name} was removed or replaced while it was written to")
    if size < segment_bytes:
        raise FolderChanged(f"{name} was cut to {size} of its {segment_bytes} bytes while it was written to")


def settle_tail(disk: Disk, folder: str) -> None:
    """Make the platter and what we read one before anything is decided by it.

    A life that ended by a failed sync may have left pages that look written, marked clean: syncing alone
    would not write them again. So sync, forget, and read from the platter.

    Raises:
        FolderLocked: somebody writes to one of them, though he does not hold LOCK: it was removed and made again.
    """
    for path in _tail(disk, folder):
        handle = disk.open(path)
        try:
            if not disk.lock(handle):
                raise FolderLocked(folder)
            disk.fdatasync(handle)
            disk.drop_cache(handle)
        finally:
            disk.close(handle)
    disk.fsync_dir(folder)


def _tail(disk: Disk, folder: str) -> list[str]:
    names = sorted(name for name in disk.listdir(folder) if parse_name(name))
    return [f"{folder}/{name}" for name in names[-TAIL_SEGMENTS:]]
