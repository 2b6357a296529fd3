"""Reading a segment ahead, and finding the next whole record header in it. FORMAT.md 5.2."""

import errno

from zbroker.store.disk import Disk
from zbroker.store.record import HEADER_BYTES, MAGIC, WITHOUT_INDEX, Header, crc32c, padded, parse_header
from zbroker.store.segment import BLOCK_BYTES, SegmentHeader, data_end

WINDOW_BYTES = 4 << 20  # larger gains nothing (the page cache feeds it) and costs memory at start

ZEROS = bytes(256 << 10)  # comparing whole chunks runs at memcmp's speed; an empty tail is 64 MiB of them


class Window:
    """A segment's bytes, read ahead; a block that the device cannot read comes back as zeros."""

    def __init__(self, disk: Disk, path: str, size: int, ahead: int = WINDOW_BYTES) -> None:
        self._disk = disk
        self._ahead = ahead
        self._handle = disk.open(path)
        self.size = size
        self.data = b""
        self.base = 0
        self.zero_from = size  # from here to the end all is 0, as far as looked; spares reading a tail thrice

    def load(self, offset: int, length: int) -> int:
        """Make [offset, offset + length) available as far as the file goes; returns its place in `data`."""
        at = offset - self.base
        if at < 0 or at + length > len(self.data):
            wanted = min(max(length, self._ahead), max(0, self.size - offset))
            self.data = self._read(offset, wanted)
            self.base = offset
            at = 0
        return at

    def _read(self, offset: int, length: int) -> bytes:
        try:
            return self._disk.pread(self._handle, length, offset)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
        parts = []
        for start in range(offset, offset + length, BLOCK_BYTES):
            count = min(BLOCK_BYTES, offset + length - start)
            try:
                parts.append(self._disk.pread(self._handle, count, start))
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                parts.append(bytes(count))  # a bad sector is damage like any other: it gets the same test
        return b"".join(parts)

    def nonzero_end(self, offset: int, end: int) -> int:
        """Just behind the last byte of [offset, end) that is not 0; `offset` when all are."""
        found = offset
        end = min(end, self.zero_from)
        is_tail = end in (self.zero_from, data_end(self.size))
        while offset < end:
            chunk = self._read(offset, min(len(ZEROS), end - offset))
            if not chunk:
                break
            if chunk != (ZEROS if len(chunk) == len(ZEROS) else bytes(len(chunk))):
                found = offset + len(chunk.rstrip(b"\0"))
            offset += len(chunk)
        if is_tail:
            self.zero_from = found
        return found

    def close(self) -> None:
        self._disk.close(self._handle)


def find_header(
    window: Window, offset: int, header: SegmentHeader, least: int, below: int
) -> tuple[int, Header] | None:
    """The next whole record header at or after `offset` whose index lies in [least, below).

    A record that takes no index counts with the one before it, hence `least - 1` for those.
    """
    salt_crc = crc32c(header.salt)
    end = min(data_end(header.segment_bytes), padded(window.zero_from))
    while offset + HEADER_BYTES <= end:
        at = window.load(offset, HEADER_BYTES)
        if len(window.data) - at < HEADER_BYTES:
            return None
        hit = window.data.find(MAGIC, at)
        if hit < 0:
            offset = padded(window.base + len(window.data) - len(MAGIC) + 1)
            continue
        offset = window.base + hit
        if offset % HEADER_BYTES:
            offset = padded(offset)
            continue
        at = window.load(offset, HEADER_BYTES)
        found = parse_header(window.data, at, salt_crc)
        fits = found is not None and offset + HEADER_BYTES + found.body_bytes <= data_end(header.segment_bytes)
        if found is not None and fits and found.epoch == header.epoch:
            floor = least - 1 if found.kind in WITHOUT_INDEX else least
            if floor <= found.record_index < below:
                return offset, found
        offset += HEADER_BYTES
    return None
