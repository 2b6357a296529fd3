"""The Disk with os calls: the one file of the store that touches the operating system."""

import errno
import fcntl
import os
import stat
import struct
import sys
import time
import weakref
from collections.abc import Sequence

from zbroker.store.disk import FileSystem

# Linux limits.h: more iovecs in one call is EINVAL. A short count is legal, the caller loops.
IOV_MAX = 1024
# struct flock of 64-bit Linux: type, whence, padding, start, length 0 = to the end, pid which must be 0.
OFD_WRITE_LOCK = struct.pack("hh4xqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
OFD_READ_LOCK = struct.pack("hh4xqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
# A lost lock or an unsynced "synced" write are both usual there.
# They keep a mark at each block that was reserved and not written; to take it away is a transaction of their journal.
MARKING_KINDS = frozenset(["ext4", "xfs"])
NETWORK_KINDS = frozenset(
    ["9p", "afs", "ceph", "cifs", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "lustre", "nfs", "nfs4", "smb3"]
)
WARNINGS = {
    "overlay": "an overlay file system: the container's writable layer goes with the container; mount a volume",
    "tmpfs": "a file system in memory: nothing in it survives a power cut",
    "ramfs": "a file system in memory: nothing in it survives a power cut",
}

LAST_MS = 253_402_300_799_999  # of the year 9999: calendars end there, and no field on disk is below 0


class OsDisk:
    """Linux; on macOS a sync is F_FULLFSYNC and the lock is flock's.

    Args:
        read_only: open files for reading alone, so that a folder on a read-only file system can be looked at; the
            lock is then shared with other readers, and still excludes a writer.
    """

    def __init__(self, *, read_only: bool = False) -> None:
        self._mode = os.O_RDONLY if read_only else os.O_RDWR
        self._ofd_lock = OFD_READ_LOCK if read_only else OFD_WRITE_LOCK
        self._flock = fcntl.LOCK_SH if read_only else fcntl.LOCK_EX
        self._is_the_parents = False
        self._inodes: dict[
            int, tuple[int, int]
        ] = {}  # of open handles: inode and device, given to no other file meanwhile

    def make_folder(self, path: str) -> None:
        missing: list[str] = []
        here = os.path.abspath(path)
        while not os.path.isdir(here):
            missing.append(here)
            here = os.path.dirname(here)
        for folder in reversed(missing):
            os.mkdir(folder, 0o700)  # messages are nobody else's business
            self.fsync_dir(os.path.dirname(folder))

    def remove_folder(self, path: str) -> None:
        os.rmdir(path)

    def listdir(self, path: str) -> list[str]:
        return os.listdir(path)

    def open(self, path: str, create: bool = False) -> int:
        """Raises OSError for what is no regular file: without O_NONBLOCK, which means nothing for one, a FIFO would be waited for."""
        handle = os.open(path, self._mode | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_CREAT if create else 0), 0o600)
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            os.close(handle)
            raise OSError(errno.EINVAL, "is no regular file", path)
        self._inodes[handle] = found.st_ino, found.st_dev
        return handle

    def close(self, handle: int) -> None:
        if self._is_the_parents:
            return  # by now the number may be another file's
        self._inodes.pop(handle, None)
        os.close(handle)

    def let_go(self) -> None:
        """Close all handles, for good: in a child after a fork, which would hold its parent's locks with them beyond its end."""
        self._is_the_parents = True
        while self._inodes:
            os.close(self._inodes.popitem()[0])

    def lock(self, handle: int) -> bool:
        """An open-file-description lock: a POSIX lock would go with any close of the file in this process."""
        try:
            if sys.platform == "linux":
                fcntl.fcntl(handle, fcntl.F_OFD_SETLK, self._ofd_lock)
            else:
                fcntl.flock(handle, self._flock | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    def size(self, handle: int) -> int:
        return os.fstat(handle).st_size

    def size_at(self, path: str, handle: int) -> int | None:
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_size if (found.st_ino, found.st_dev) == self._inodes[handle] else None

    def pread(self, handle: int, length: int, offset: int) -> bytes:
        data = os.pread(handle, length, offset)
        if len(data) == length or not data:
            return data
        parts = [data]
        done = len(data)
        while done < length and (data := os.pread(handle, length - done, offset + done)):
            parts.append(data)
            done += len(data)
        return b"".join(parts)

    def pwrite(self, handle: int, data: bytes, offset: int) -> int:
        return os.pwrite(handle, data, offset)

    def pwritev(self, handle: int, parts: Sequence[bytes], offset: int) -> int:
        return os.pwritev(handle, parts if len(parts) <= IOV_MAX else parts[:IOV_MAX], offset)

    def fdatasync(self, handle: int) -> int:
        started_ns = time.perf_counter_ns()
        if sys.platform == "darwin":
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)  # fsync there leaves the data in the drive's cache
        else:
            os.fdatasync(handle)
        return (time.perf_counter_ns() - started_ns) // 1000

    def fsync(self, handle: int) -> None:
        if sys.platform == "darwin":
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
        else:
            os.fsync(handle)

    def fsync_dir(self, path: str) -> None:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def fallocate(self, handle: int, length: int) -> None:
        if sys.platform == "darwin":
            if self.size(handle) < length:
                os.ftruncate(handle, length)  # no posix_fallocate there; ENOSPC may then come with a write
            return
        os.posix_fallocate(handle, 0, length)

    def drop_cache(self, handle: int) -> None:
        if sys.platform == "linux":
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new)

    def link(self, old: str, new: str) -> None:
        os.link(old, new)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def file_system(self, path: str) -> FileSystem:
        try:
            with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
                kind = kind_of_mount(os.path.realpath(path), mounts.read())
        except OSError:
            kind = "unknown"  # no /proc: macOS, a bare chroot
        warning = WARNINGS.get(kind)
        return FileSystem(kind, kind in NETWORK_KINDS, [] if warning is None else [warning], kind in MARKING_KINDS)


def leave_to_parent(disk: OsDisk) -> None:
    """After a fork, none of its files is open in the child: for the disks of programs that are not ours."""
    _left_to_parents.add(disk)


def _let_go_in_child() -> None:
    for disk in list(_left_to_parents):
        disk.let_go()


_left_to_parents: weakref.WeakSet[OsDisk] = weakref.WeakSet()
os.register_at_fork(after_in_child=_let_go_in_child)


def wall_ms() -> int:
    """Milliseconds since 1970, within the years 1970 to 9999 whatever the system says: never for a timer."""
    return min(max(time.time_ns() // 1_000_000, 0), LAST_MS)


def kind_of_mount(path: str, mounts: str) -> str:
    """The type of the longest mount point above a path; the later of two equals covers the earlier.

    Source: proc_pid_mounts(5), fstab(5) for the octal escapes.
    """
    best, best_kind = "", "unknown"
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        is_above = path == point or path.startswith(point.rstrip("/") + "/")
        if is_above and len(point) >= len(best):
            best, best_kind = point, fields[2]
    return best_kind
