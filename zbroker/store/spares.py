"""Files for segments to come: one prepared ahead, and ballast that is given up first when the disk is full. FORMAT.md 4."""

import errno
from collections.abc import Callable
from typing import Final

from zbroker.store.disk import Disk
from zbroker.store.segment import segment_name

FULL_RETRY_US: Final = 1_000_000  # somebody has to free space first; once a second costs nothing
NO_SPACE: Final = frozenset([errno.ENOSPC, errno.EDQUOT])
# These heal, others do not. EFBIG: of a limit (ulimit -f), since a file system that holds no 64 MiB holds no journal.
OUT_OF_SPACE: Final = NO_SPACE | {errno.EMFILE, errno.ENFILE, errno.EFBIG}
ADVICE: Final = {
    errno.EFBIG: "; `ulimit -f` must be unlimited, or above that",
    errno.EMFILE: "; raise `ulimit -n`",
}
BALLAST: Final = "ballast"


class Spares:
    """Makes segment files. Calls raise OSError for what is not a want of space.

    Attributes:
        prepared: handle of the next segment's file.
        full: why producers must be refused; None while there is room. Operations may go on into `prepared`.
        retry_at: when to try again; None while nothing is wanting.
    """

    def __init__(self, disk: Disk, folder: str, segment_bytes: int) -> None:
        self._disk = disk
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._has_ballast = False
        self.prepared: int | None = None
        self.full: str | None = None
        self.retry_at: int | None = None
        self.relieve: Callable[[], bool] = lambda: False  # gives back what can be made again; False when there is none

    @property
    def bytes(self) -> int:
        """Allocated and not used yet."""
        return self._segment_bytes * ((self.prepared is not None) + self._has_ballast)

    def find_ballast(self) -> None:
        """That of an earlier life; one that is not all there would give back nothing."""
        if BALLAST in self._disk.listdir(self._folder):
            path = f"{self._folder}/{BALLAST}"
            handle = self._disk.open(path)
            self._has_ballast = self._disk.size(handle) >= self._segment_bytes
            self._disk.close(handle)
            if not self._has_ballast:
                self._disk.unlink(path)

    def make(self, number: int) -> int | None:
        """A segment's file, allocated and findable after a power cut; None, and full, without space for it.

        If only the ballast makes room, it is full as well: what is left is for operations.
        """
        handle, why = self._allocate(segment_name(number))
        if handle is None and self.relieve():
            handle, why = self._allocate(segment_name(number))
        if handle is None and self._has_ballast:
            self._disk.unlink(f"{self._folder}/{BALLAST}")
            self._has_ballast = False
            handle, _ = self._allocate(segment_name(number))
            self.full = f"the ballast was given up for the next segment ({why})"
        elif handle is None:
            self.full = f"the next segment of {self._segment_bytes} bytes cannot be made ({why})"
        if handle is None:
            return None
        try:
            self._disk.fsync(handle)
            self._disk.fsync_dir(self._folder)
        except OSError:
            self._disk.close(handle)
            raise
        return handle

    def prepare(self, number: int, now: int) -> None:
        """Have the next segment's file, and ballast again: only then there is room as before."""
        if (self.retry_at is not None and now < self.retry_at) or (self.prepared is not None and self.full is None):
            return
        if self.prepared is None:
            self.full = None
            self.prepared = self.make(number)
        elif self.full is not None and self._make_ballast():
            self.full = None
        if self.full is None and not self._has_ballast:
            self._make_ballast()  # without it there is less in reserve, and that is all
        self.retry_at = now + FULL_RETRY_US if self.full is not None else None

    def take(self) -> int | None:
        """The prepared file, which is the caller's to close now."""
        handle, self.prepared = self.prepared, None
        return handle

    def _make_ballast(self) -> bool:
        handle, _ = self._allocate(BALLAST)
        if handle is not None:
            self._disk.close(handle)
            self._has_ballast = True
        return handle is not None

    def _allocate(self, name: str) -> tuple[int | None, str]:
        path = f"{self._folder}/{name}"
        handle = None
        try:
            handle = self._disk.open(path, create=True)
            self._disk.fallocate(handle, self._segment_bytes)
        except OSError as error:
            if handle is not None:
                self._disk.close(handle)
                self._disk.unlink(path)
            if error.errno not in OUT_OF_SPACE:
                raise
            return None, f"{error.strerror}{ADVICE.get(error.errno, '')}"
        return handle, ""

    def close(self) -> None:
        """Let go of the prepared file; the next life finds it."""
        handle = self.take()
        if handle is not None:
            self._disk.close(handle)
