"""One segment file: its name, its header block in two copies, and writing to it whole. FORMAT.md 1 and 2."""

import re
import struct
from collections.abc import Sequence

import msgspec

from patterns.wire.limits import INTEGER_MAX
from zbroker.store.disk import Disk
from zbroker.store.record import crc32c

MAGIC = b"ZBSEGMT1"
FORMAT = 3
READER_MIN = 1  # the oldest reader that may open what we write ..
READER_MIN_GIVEN_BACK = 2  # .. and that of all new ones: others are given back, which to a reader of format 1 would be damage, and acks undone
READER_MIN_COMPACTED = 3  # of a compacted segment: its records are not dense, nor in the order of their indexes
BLOCK_BYTES = 4096
SALT_BYTES = 16
UUID_BYTES = 16
SEGMENT_BYTES = 64 << 20  # big enough that a roll is rare, small enough that one live message pins little
SEGMENT_BYTES_MIN = 8 * BLOCK_BYTES  # two header blocks and room to be a quarter full
FIRST_NUMBER = 1
NUMBER_MAX = (
    1 << 31
) - 1  # of segments, 128 PiB; an epoch in a header may be as high: one added still fits its 32 bits ..
EPOCH_MAX = (
    1 << 21
) - 1  # .. and no life may begin above this: ids of producers and leases, epoch << 32, end at 2^53 - 1
STRAY_ABOVE = 1 << 10  # a copy so far above the newest segment is refused, since epochs grow with the numbers

_HEADER = struct.Struct(">8sHHI16sQQIIQQQ16sQQQQ")
_CRC_AT = 12
_NAME = re.compile(r"([0-9]{10})-([0-9]{4})\.seg")


class SegmentHeader(msgspec.Struct, frozen=True):
    """The header block; field by field in FORMAT.md 2."""

    folder_uuid: bytes
    number: int
    last_covered: int
    generation: int
    epoch: int
    first_index: int
    durable_index: int
    checkpoint_index: int
    salt: bytes
    segment_bytes: int
    created_ms: int
    oldest_needed: int
    previous: int = 0
    format: int = FORMAT
    reader_min: int = READER_MIN
    crc: int = 0  # as found on the disk or as packed; not an argument


def pack_header(header: SegmentHeader) -> tuple[bytes, int]:
    """The block of 4 KiB and its CRC."""
    fields = [
        header.folder_uuid,
        header.number,
        header.last_covered,
        header.generation,
        header.epoch,
        header.first_index,
        header.durable_index,
        header.checkpoint_index,
        header.salt,
        header.segment_bytes,
        header.created_ms,
        header.oldest_needed,
        header.previous,
    ]
    block = _HEADER.pack(MAGIC, header.format, header.reader_min, 0, *fields).ljust(BLOCK_BYTES, b"\0")
    crc = crc32c(block)
    return block[:_CRC_AT] + crc.to_bytes(4, "big") + block[_CRC_AT + 4 :], crc


def unpack_header(block: bytes) -> SegmentHeader | None:
    """The header, or None when the block is not a whole one."""
    if len(block) != BLOCK_BYTES or block[:8] != MAGIC:
        return None
    crc = int.from_bytes(block[_CRC_AT : _CRC_AT + 4], "big")
    if crc32c(block[:_CRC_AT] + b"\0\0\0\0" + block[_CRC_AT + 4 :]) != crc:
        return None
    fields = _HEADER.unpack_from(block)
    header = SegmentHeader(*fields[4:])
    indexes = (header.first_index, header.durable_index, header.checkpoint_index, header.oldest_needed)
    numbers = (header.number, header.last_covered, header.epoch, header.previous)
    if max(indexes) > INTEGER_MAX or max(numbers) > NUMBER_MAX:
        return None  # nobody wrote so much; what comes after it would fit no field
    return msgspec.structs.replace(header, format=fields[1], reader_min=fields[2], crc=crc)


def segment_name(number: int, generation: int = 0) -> str:
    """`NNNNNNNNNN-GGGG.seg`, so that a listing sorts by age."""
    return f"{number:010d}-{generation:04d}.seg"


def parse_name(name: str) -> tuple[int, int] | None:
    """Number and generation; None when the file is no segment."""
    match = _NAME.fullmatch(name)
    return None if match is None else (int(match[1]), int(match[2]))


def data_end(segment_bytes: int) -> int:
    """Where records must end: the last block holds the header's copy."""
    return segment_bytes - BLOCK_BYTES


def write_whole(disk: Disk, handle: int, parts: Sequence[bytes], offset: int) -> int:
    """Write all parts one after the other, however short the system cuts it; returns the bytes.

    Raises:
        OSError: the system's, or one of ours when it makes no progress.
    """
    total = sum(map(len, parts))
    done = disk.pwritev(handle, parts, offset)
    if done == total:
        return total
    rest = b"".join(parts)  # rare enough that simple beats sparing
    while done < total:
        count = disk.pwrite(handle, rest[done:], offset + done)
        if count <= 0:
            raise OSError(f"the disk took {done} of {total} bytes and then none")
        done += count
    return total
