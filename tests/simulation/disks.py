"""The virtual disk with faults that hit while a broker writes and after, and an account of which bytes they took."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from zbroker.testing.disk import SECTOR_BYTES, Inode, VirtualDisk

HIT = Callable[[str, int, int], None]  # path, first byte, byte after the last
BLOCK_BYTES = 4096


class FaultyDisk(VirtualDisk):
    """A VirtualDisk whose syncs take time, lose writes or send them elsewhere, and whose sectors go bad.

    Attributes:
        elapsed_us: time that calls have taken; the caller sets it to 0.
        slow_sync_us: what each sync takes now.
        lose_next, misdirect_next: the next sync of a segment loses one of its sectors, or writes it to another place.
        on_hit: told which bytes a fault has destroyed.
        injected: faults by kind.
    """

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random
        self.elapsed_us = 0
        self.slow_sync_us = 0
        self.lose_next = 0
        self.misdirect_next = 0
        self.on_hit: HIT = lambda path, start, end: None
        self.injected: Counter[str] = Counter()
        self._bad: dict[int, list[tuple[int, int]]] = {}  # id of inode (kept alive by the disk) -> byte ranges
        self._cost_us = 10

    def path_of(self, inode: Inode) -> str | None:
        """The name that an inode has now."""
        for path, other in self.live.items():
            if other is inode:
                return path
        return None

    # -- calls with faults ----------------------------------------------------------------------------------------

    def pread(self, handle: int, length: int, offset: int) -> bytes:
        for start, end in self._bad.get(id(self._inode(handle)), ()):
            if start < offset + length and offset < end:
                self.injected["bad_sector"] += 1
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().pread(handle, length, offset)

    def pwrite(self, handle: int, data: bytes, offset: int) -> int:
        self.elapsed_us += self._cost_us
        done = super().pwrite(handle, data, offset)
        bad = self._bad.get(id(self._inode(handle)))
        if bad:  # a drive puts another sector in the place of a bad one that is written to
            bad[:] = [(start, end) for start, end in bad if end <= offset or offset + done <= start]
        if done < len(data):
            self.injected["short_write"] += 1
        return done

    def fdatasync(self, handle: int) -> int:
        took = self.sync_us + self.slow_sync_us
        self.elapsed_us += took
        if self.slow_sync_us:
            self.injected["slow_sync"] += 1
        inode = self._inode(handle)
        if (self.lose_next or self.misdirect_next) and len(inode.unsynced) > 1:
            self._betray(handle, inode)
        super().fdatasync(handle)
        return took

    def _betray(self, handle: int, inode: Inode) -> None:
        """The drive says that it has written a sector, and has not, or not there."""
        path = self.path_of(inode)
        if path is None:
            return
        sector = self._random.choice(sorted(inode.unsynced))
        start = sector * SECTOR_BYTES
        data = bytes(inode.cache[start : start + SECTOR_BYTES])
        del inode.unsynced[sector]
        inode.platter.extend(bytes(max(0, start + SECTOR_BYTES - len(inode.platter))))
        self.on_hit(path, start, start + SECTOR_BYTES)
        if self.misdirect_next:
            self.misdirect_next -= 1
            self.injected["misdirected_write"] += 1
            self._overwrite(path, data)
        else:
            self.lose_next -= 1
            self.injected["lost_write"] += 1

    def _overwrite(self, path: str, data: bytes) -> None:
        inode = self.live[path]
        sectors = len(inode.platter) // SECTOR_BYTES
        if not sectors:
            return
        start = self._random.randrange(sectors) * SECTOR_BYTES
        inode.platter[start : start + SECTOR_BYTES] = data  # the cache does not know
        self.on_hit(path, start, start + SECTOR_BYTES)

    # -- faults at rest -------------------------------------------------------------------------------------------

    def rot(self, path: str, start: int, length: int) -> None:
        """Bits flip in a range."""
        inode = self.live[path]
        end = min(start + length, len(inode.platter), len(inode.cache))
        for at in range(start, end):
            mask = 1 << self._random.randrange(8)
            inode.platter[at] ^= mask
            inode.cache[at] ^= mask
        self.injected["rot"] += 1
        self.on_hit(path, start, end)

    def zero_block(self, path: str, start: int, length: int) -> None:
        """A drive gives up on a block and remaps it."""
        end = min(start + length, len(self.live[path].platter), len(self.live[path].cache))
        self.zero(path, start, end - start)
        self.injected["zeroed_block"] += 1
        self.on_hit(path, start, end)

    def make_bad(self, path: str, start: int) -> None:
        """A sector that cannot be read any more; readers fall back to blocks of 4 KiB, at places of their own."""
        self._bad.setdefault(id(self.live[path]), []).append((start, start + SECTOR_BYTES))
        self.injected["bad_sector_made"] += 1
        self.on_hit(path, start - BLOCK_BYTES, start + SECTOR_BYTES + BLOCK_BYTES)

    def lose_file(self, path: str) -> None:
        """Somebody deletes it."""
        size = len(self.live[path].cache)
        self.remove(path)
        self.injected["missing_file"] += 1
        self.on_hit(path, 0, size)

    def is_on_platter(self, path: str, start: int, size: int) -> bool:
        """Whether a power cut now would leave these bytes as a program reads them, as far as syncs go."""
        inode = self.live.get(path)
        if inode is None or self.durable.get(path) is not inode or len(inode.platter) < start + size:
            return False
        last = (start + size - 1) // SECTOR_BYTES
        return not any(sector in inode.unsynced for sector in range(start // SECTOR_BYTES, last + 1))

    def shown(self, path: str, start: int, size: int) -> bytes:
        """What a program would read there; less where the file ends, or is none."""
        inode = self.live.get(path)
        return b"" if inode is None else bytes(inode.cache[start : start + size])

    def pwritev(self, handle: int, parts: Sequence[bytes], offset: int) -> int:
        self._call("pwritev")
        return self.pwrite(handle, b"".join(parts), offset)


class ProcessDisk:
    """The disk as one process has it: handles, and so locks, go with the process."""

    def __init__(self, disk: FaultyDisk) -> None:
        self._disk = disk
        self._handles: set[int] = set()

    def open(self, path: str, create: bool = False) -> int:
        handle = self._disk.open(path, create)
        self._handles.add(handle)
        return handle

    def close(self, handle: int) -> None:
        self._handles.discard(handle)
        self._disk.close(handle)

    def die(self) -> None:
        """SIGKILL, or the end: the page cache stays."""
        for handle in sorted(self._handles & self._disk._handles.keys()):
            self._disk.close(handle)
        self._handles.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)
