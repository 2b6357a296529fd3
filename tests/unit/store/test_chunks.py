"""A file of chunks is whole or it is nothing; which byte rots does not matter."""

import errno

import pytest

from zbroker.store.chunks import CHUNK_BYTES_MAX, SYNC_BYTES, ChunkWriter, NotWhole, read_chunks
from zbroker.testing.disk import VirtualDisk

PATH = "/j/c"
CHUNKS = [(0, b"one"), (7, b""), (0, b"x" * 5000)]


def written(disk: VirtualDisk) -> None:
    writer = ChunkWriter(disk, PATH)
    for tag, body in CHUNKS:
        writer.put(tag, body)
    writer.finish()


def test_what_was_written_is_read() -> None:
    disk = VirtualDisk()
    written(disk)
    assert list(read_chunks(disk, PATH)) == CHUNKS
    written(disk)  # over the old one
    assert list(read_chunks(disk, PATH)) == CHUNKS


def test_a_flip_of_any_bit_and_an_end_at_any_byte_is_found() -> None:
    disk = VirtualDisk()
    written(disk)
    whole = disk.content(PATH)
    for at in [*range(120), len(whole) - 1, len(whole) - 9]:
        disk.flip_bit(PATH, at, at % 8)
        with pytest.raises(NotWhole):
            list(read_chunks(disk, PATH))
        disk.flip_bit(PATH, at, at % 8)
    inode = disk.live[PATH]
    for size in [*range(120), len(whole) - 1]:
        inode.cache = bytearray(whole[:size])
        with pytest.raises(NotWhole):
            list(read_chunks(disk, PATH))


def test_chunks_of_another_file_do_not_continue_one() -> None:
    disk = VirtualDisk()
    written(disk)
    other = ChunkWriter(disk, "/j/other")
    other.put(1, b"one")
    other.put(7, b"")
    other.finish()
    first, second = disk.live[PATH].cache, disk.live["/j/other"].cache
    second[8:27] = first[8:27]
    with pytest.raises(NotWhole, match="is not what was written"):
        list(read_chunks(disk, "/j/other"))


def test_an_impossible_length_and_a_bad_sector_are_told() -> None:
    disk = VirtualDisk()
    written(disk)
    disk.live[PATH].cache[12:16] = (CHUNK_BYTES_MAX + 1).to_bytes(4, "big")
    with pytest.raises(NotWhole, match="a length"):
        list(read_chunks(disk, PATH))
    disk.fail("pread", errno.EIO)
    with pytest.raises(NotWhole, match="cannot be read"):
        list(read_chunks(disk, PATH))
    with pytest.raises(NotWhole, match="cannot be opened"):
        list(read_chunks(disk, "/j/absent"))


def test_a_sync_goes_with_each_mebibyte() -> None:
    disk = VirtualDisk()
    writer = ChunkWriter(disk, PATH)
    for _ in range(8):
        writer.put(0, bytes(SYNC_BYTES // 4))
    assert disk.calls["fdatasync"] == 2
    writer.close()
    writer.close()
