"""A file of chunks, each under a CRC that continues the one before: checkpoints and segment indexes. FORMAT.md 7.

Nothing is written twice, and a file without its end is no file: so it needs no rename to be believed or not.
"""

import struct
from collections.abc import Iterator
from typing import Final

from zbroker.store.disk import Disk
from zbroker.store.record import crc32c
from zbroker.store.segment import write_whole

MAGIC: Final = b"ZBCHUNK1"
CHUNK_BYTES_MAX: Final = (
    16 << 20
)  # a length above it is rot, and must not become an allocation; writers keep to 256 KiB
SYNC_BYTES: Final = 1 << 20  # what a sync finds to write is a commit's delay: 1.5 ms
META: Final = (1 << 64) - 1  # tag of the first chunk, the store's own
END: Final = (1 << 64) - 2  # tag of the last one; its body is empty

_HEADER = struct.Struct(">IIQ")  # crc of the chunk before, the 12 bytes that follow, and the body; body_bytes; tag


class NotWhole(Exception):
    """These bytes are no whole file of chunks; the text says where."""


class ChunkWriter:
    """Writes a new file; an old one of that name is gone."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self.path = path
        try:
            disk.unlink(path)
        except FileNotFoundError:
            pass  # the usual case
        self._handle: int | None = disk.open(path, create=True)
        self._crc = crc32c(MAGIC)
        self._unsynced = 0
        self.bytes = write_whole(disk, self._handle, [MAGIC], 0)

    def put(self, tag: int, body: bytes) -> None:
        """Write a chunk; now and then a sync goes with it, so that none has much to do."""
        assert self._handle is not None
        tail = _HEADER.pack(0, len(body), tag)[4:]
        self._crc = crc32c(body, crc32c(tail, self._crc))
        size = write_whole(self._disk, self._handle, [self._crc.to_bytes(4, "big") + tail, body], self.bytes)
        self.bytes += size
        self._unsynced += size
        if self._unsynced >= SYNC_BYTES:
            self._disk.fdatasync(self._handle)
            self._unsynced = 0

    def finish(self) -> None:
        """The last chunk, and all of it on the platter; the name is the caller's business."""
        assert self._handle is not None
        self.put(END, b"")
        self._disk.fsync(self._handle)
        self.close()

    def close(self) -> None:
        """Let go of the file, whole or not."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._disk.close(handle)


def read_chunks(disk: Disk, path: str) -> Iterator[tuple[int, bytes]]:
    """Tag and body of each chunk but the END, verified one by one.

    Raises:
        NotWhole: the file ends, or rots, before its END.
    """
    try:
        handle = disk.open(path)
    except OSError as error:
        raise NotWhole(f"cannot be opened ({error.strerror})") from error
    try:
        size, offset = disk.size(handle), len(MAGIC)
        if _read(disk, handle, len(MAGIC), 0) != MAGIC:
            raise NotWhole("does not begin as one")
        crc = crc32c(MAGIC)
        while True:
            head = _read(disk, handle, _HEADER.size, offset)
            found, body_bytes, tag = _HEADER.unpack(head)
            offset += _HEADER.size
            if body_bytes > min(CHUNK_BYTES_MAX, size - offset):
                raise NotWhole(f"has a length at byte {offset} that cannot be")
            body = _read(disk, handle, body_bytes, offset)
            crc = crc32c(body, crc32c(head[4:], crc))
            if crc != found:
                raise NotWhole(f"is not what was written before byte {offset + body_bytes}")
            if tag == END:
                return
            offset += body_bytes
            yield tag, body
    finally:
        disk.close(handle)


def _read(disk: Disk, handle: int, length: int, offset: int) -> bytes:
    try:
        data = disk.pread(handle, length, offset)
    except OSError as error:
        raise NotWhole(f"cannot be read at byte {offset} ({error.strerror})") from error
    if len(data) < length:
        raise NotWhole(f"ends at byte {offset + len(data)}")
    return data
