"""A disk in memory with a page cache and a platter, for tests that pull the plug.

Written is not synced here: a process crash keeps the cache, a power cut keeps of each 512-byte sector any one of
the versions written since its last sync, or the synced one, out of order; names and sizes likewise.
"""

import errno
import os
import posixpath
from collections.abc import Sequence
from random import Random

from zbroker.store.disk import FileSystem

SECTOR_BYTES = 512  # what a drive writes whole; smaller than any page, so it tears the most


class PowerCut(BaseException):
    """The machine stopped in the middle of a call; the test goes on with power_cut()."""


class Inode:
    """One file's bytes: as programs see them, as the platter holds them, and what differs."""

    def __init__(self) -> None:
        self.cache = bytearray()
        self.platter = bytearray()
        self.unsynced: dict[int, list[bytes]] = {}  # sector -> versions written since the last sync


class VirtualDisk:
    """Implements zbroker.store.disk.Disk.

    Attributes:
        faults: (call, countdown, errno): the countdown-th `call` from now raises; several may wait.
        short_writes: a Random makes pwrite and pwritev write short with it; None writes whole.
        sync_us: what a sync claims to have taken.
        free_bytes: what fallocate may still hand out; None is without limit.
        calls: how often each call was made.
        cut_after: so many more calls that change something, then PowerCut instead of the next one (which then is
            half done: a cut write is in the cache). None is never.
    """

    def __init__(self) -> None:
        self.live: dict[str, Inode] = {}
        self.durable: dict[str, Inode] = {}
        self.folders: set[str] = set()
        self.faults: list[list[object]] = []
        self.short_writes: Random | None = None
        self.sync_us = 100
        self.free_bytes: int | None = None
        self.kind = FileSystem("virtual", False, [])
        self.calls: dict[str, int] = {}
        self.cut_after: int | None = None
        self._handles: dict[int, Inode] = {}
        self._locks: dict[int, Inode] = {}
        self._next_handle = 1000

    # -- the Disk protocol ----------------------------------------------------------------------------

    def make_folder(self, path: str) -> None:
        self.folders.add(path)

    def remove_folder(self, path: str) -> None:
        self.folders.discard(path)

    def listdir(self, path: str) -> list[str]:
        self._call("listdir")
        return [posixpath.basename(name) for name in self.live if posixpath.dirname(name) == path]

    def open(self, path: str, create: bool = False) -> int:
        self._call("open")
        if path not in self.live:
            if not create:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            self.live[path] = Inode()
        self._next_handle += 1
        self._handles[self._next_handle] = self.live[path]
        return self._next_handle

    def close(self, handle: int) -> None:
        self._inode(handle)
        del self._handles[handle]
        self._locks.pop(handle, None)

    def lock(self, handle: int) -> bool:
        inode = self._inode(handle)
        self._call("lock")
        if any(held is inode for other, held in self._locks.items() if other != handle):
            return False
        self._locks[handle] = inode
        return True

    def size(self, handle: int) -> int:
        return len(self._inode(handle).cache)

    def size_at(self, path: str, handle: int) -> int | None:
        self._call("size_at")
        inode = self._inode(handle)
        return len(inode.cache) if self.live.get(path) is inode else None

    def pread(self, handle: int, length: int, offset: int) -> bytes:
        inode = self._inode(handle)
        self._call("pread")
        return bytes(inode.cache[offset : offset + length])

    def pwrite(self, handle: int, data: bytes, offset: int) -> int:
        inode = self._inode(handle)
        self._call("pwrite")
        if self.short_writes is not None and len(data) > 1:
            data = data[: self.short_writes.randint(1, len(data))]
        self._put(inode, offset, data)
        return len(data)

    def pwritev(self, handle: int, parts: Sequence[bytes], offset: int) -> int:
        self._call("pwritev")
        return self.pwrite(handle, b"".join(parts), offset)

    def fdatasync(self, handle: int) -> int:
        inode = self._inode(handle)
        try:
            self._call("fdatasync")
        except OSError:
            inode.unsynced.clear()  # as Linux does: the pages are marked clean, the platter keeps the old bytes
            raise
        self._sync(inode)
        return self.sync_us

    def fsync(self, handle: int) -> None:
        inode = self._inode(handle)
        try:
            self._call("fsync")
        except OSError:
            inode.unsynced.clear()
            raise
        self._sync(inode)

    def fsync_dir(self, path: str) -> None:
        self._call("fsync_dir")
        kept = {name: inode for name, inode in self.durable.items() if posixpath.dirname(name) != path}
        here = {name: inode for name, inode in self.live.items() if posixpath.dirname(name) == path}
        self.durable = kept | here

    def fallocate(self, handle: int, length: int) -> None:
        inode = self._inode(handle)
        self._call("fallocate")
        more = max(0, length - len(inode.cache))
        if self.free_bytes is not None:
            if more > self.free_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.free_bytes -= more
        inode.cache.extend(bytes(more))

    def drop_cache(self, handle: int) -> None:
        inode = self._inode(handle)
        fresh = bytearray(inode.platter.ljust(len(inode.cache), b"\0"))
        for sector in inode.unsynced:
            span = slice(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES)
            fresh[span] = inode.cache[span]
        inode.cache = fresh

    def rename(self, old: str, new: str) -> None:
        self._call("rename")
        self.live[new] = self._named(old)
        del self.live[old]

    def link(self, old: str, new: str) -> None:
        self._call("link")
        if new in self.live:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
        self.live[new] = self._named(old)

    def unlink(self, path: str) -> None:
        self._call("unlink")
        self._named(path)
        del self.live[path]

    def file_system(self, path: str) -> FileSystem:
        return self.kind

    # -- crashes --------------------------------------------------------------------------------------

    def crash(self) -> None:
        """The process dies: handles and locks go, everything written stays."""
        self.cut_after = None
        self._handles.clear()
        self._locks.clear()

    def power_cut(self, random: Random) -> None:
        """The machine dies: of what was not synced a random part survives."""
        self.crash()
        survivors: dict[str, Inode] = {}
        for name in sorted(self.live.keys() | self.durable.keys()):
            now, synced = self.live.get(name), self.durable.get(name)
            inode = now if now is synced or random.random() < 0.5 else synced
            if inode is not None:
                survivors[name] = inode
        settled: list[Inode] = []
        for inode in survivors.values():
            if not any(inode is other for other in settled):
                self._settle(inode, random)
                settled.append(inode)
        self.live, self.durable = survivors, dict(survivors)

    def _settle(self, inode: Inode, random: Random) -> None:
        size = len(inode.cache) if random.random() < 0.5 else len(inode.platter)
        after = bytearray(inode.platter.ljust(len(inode.cache), b"\0"))
        loss = random.choice([0.0, 0.1, 0.5, 0.9, 1.0])
        for sector in sorted(inode.unsynced):
            if random.random() >= loss:
                start = sector * SECTOR_BYTES
                version = random.choice(inode.unsynced[sector])
                after[start : start + len(version)] = version
        inode.cache = after[: max(size, len(inode.platter))]
        inode.platter = bytearray(inode.cache)
        inode.unsynced = {}

    # -- faults ---------------------------------------------------------------------------------------

    def fail(self, call: str, code: int, countdown: int = 1) -> None:
        """Let the countdown-th `call` from now raise OSError(code)."""
        self.faults.append([call, countdown, code])

    def flip_bit(self, path: str, offset: int, bit: int = 0) -> None:
        """Rot at rest: on the platter and in the cache alike."""
        inode = self.live[path]
        inode.cache[offset] ^= 1 << bit
        inode.platter[offset] ^= 1 << bit

    def zero(self, path: str, offset: int, length: int) -> None:
        """A block that a drive gave up on."""
        inode = self.live[path]
        for data in (inode.cache, inode.platter):
            data[offset : offset + length] = bytes(length)

    def cut(self, path: str, size: int) -> None:
        """A file that somebody truncated."""
        inode = self.live[path]
        del inode.cache[size:], inode.platter[size:]
        inode.unsynced = {
            sector: versions for sector, versions in inode.unsynced.items() if sector * SECTOR_BYTES < size
        }

    def remove(self, path: str) -> None:
        """A file that somebody deleted."""
        self.live.pop(path)
        self.durable.pop(path, None)

    def content(self, path: str) -> bytes:
        """What a program would read."""
        return bytes(self.live[path].cache)

    # -- within ---------------------------------------------------------------------------------------

    def _call(self, name: str) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1
        if self.cut_after is not None and name not in ("pread", "listdir", "open", "lock", "size_at"):
            self.cut_after -= 1
            if self.cut_after < 0:
                raise PowerCut
        for fault in self.faults:
            call, countdown, code = fault
            if call == name:
                assert isinstance(countdown, int)
                assert isinstance(code, int)
                fault[1] = countdown - 1
                if countdown == 1:
                    self.faults.remove(fault)
                    raise OSError(code, os.strerror(code))

    def _inode(self, handle: int) -> Inode:
        if handle not in self._handles:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._handles[handle]

    def _named(self, path: str) -> Inode:
        if path not in self.live:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self.live[path]

    def _put(self, inode: Inode, offset: int, data: bytes) -> None:
        end = offset + len(data)
        if len(inode.cache) < end:
            inode.cache.extend(bytes(end - len(inode.cache)))
        inode.cache[offset:end] = data
        for sector in range(offset // SECTOR_BYTES, (end - 1) // SECTOR_BYTES + 1):
            version = bytes(inode.cache[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES])
            inode.unsynced.setdefault(sector, []).append(version)

    def _sync(self, inode: Inode) -> None:
        """After EIO the cache may hold clean pages that the platter never got: those stay off it."""
        inode.platter.extend(bytes(len(inode.cache) - len(inode.platter)))
        for sector in inode.unsynced:
            span = slice(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES)
            inode.platter[span] = inode.cache[span]
        inode.unsynced = {}
