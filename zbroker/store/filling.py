"""Zeros written ahead of small commits, so that their sync is of data alone. FORMAT.md 4.

Blocks that were only reserved are marked so; who writes to them first waits for the file system's journal, which is everybody's.
"""

from typing import Final

from zbroker.store.disk import Disk
from zbroker.store.segment import BLOCK_BYTES, data_end, write_whole
from zbroker.store.spares import OUT_OF_SPACE

FILL_BYTES: Final = 256 << 10  # 64 of the smallest commits; a next commit that is due meanwhile waits 0.3 ms for it
SMALL_BYTES: Final = 128 << 10  # of a commit; above, to write everything twice costs more than the mark


class Filling:
    """How far the current segment holds zeros that were written and synced.

    Args:
        segment_bytes: of a segment; a small one is filled in smaller pieces.

    Attributes:
        is_wanted: the file system marks blocks that were only reserved.
    """

    def __init__(self, disk: Disk, segment_bytes: int) -> None:
        self._disk = disk
        self._segment_bytes = segment_bytes
        self._fill_bytes = min(FILL_BYTES, segment_bytes // 8)
        self.is_wanted = False
        self._filled_to = self._end = BLOCK_BYTES
        self._least = 0  # bytes of zeros that the next commits should find
        self._is_small = False

    def begin(self) -> None:
        """In a new segment nothing is filled."""
        self._filled_to = self._end = BLOCK_BYTES
        self._is_small = False

    def note(self, end: int, size: int) -> None:
        """A commit of so many bytes was written, up to `end`."""
        self._end = end
        self._least = max(self._fill_bytes // 4, size)
        self._is_small = size <= SMALL_BYTES

    @property
    def is_due(self) -> bool:
        """Whether the next small commits should find zeros, and may not."""
        if not (self._is_small and self.is_wanted):
            return False
        return self._end + self._least > self._filled_to < data_end(self._segment_bytes)

    def fill(self, handle: int) -> None:
        """Write the next piece and sync it. Nothing that was committed is touched, so without space it is left. Raises OSError."""
        start = max(self._filled_to, self._end)
        end = min(start + self._fill_bytes, data_end(self._segment_bytes))
        self._filled_to = end
        if start >= end:
            return
        try:
            write_whole(self._disk, handle, [bytes(end - start)], start)
        except OSError as error:
            if error.errno not in OUT_OF_SPACE:
                raise
            self._filled_to = data_end(self._segment_bytes)  # not tried again in this one
        self._disk.fdatasync(handle)
