"""One record on the disk: a header of 64 bytes under a salted CRC, a body under its own. FORMAT.md 3.

Speed matters here: the header is packed by one precompiled struct and its CRC continues the salt's, so that
nothing is joined to be summed. google_crc32c takes bytes only, hence slices of bytes and no memoryview.
"""

import struct
from typing import NamedTuple

from google_crc32c import extend as _extend
from google_crc32c import value as _value

from patterns.wire.limits import INTEGER_MAX
from patterns.wire.records import Record, RecordKind

MAGIC = b"ZBR1"
HEADER_BYTES = 64
ALIGN_BYTES = 64  # where records begin; a look-ahead after damage has few places to try
COMMIT_ALIGN_BYTES = 4096  # a commit never shares a page with the one before: rewriting one could tear the other
RECORD_VERSION = 1
COLUMNS_LENGTH_BYTES = 4

HEADER = struct.Struct(">4sIIIQQIIBBHIQQ")
_SUMMED = struct.Struct(">IIQQIIBBHIQQ")  # bytes 8..63, what the header's CRC covers after the salt

# These take no index: they carry that of the record before them, so that the broker's numbering has no holes.
WITHOUT_INDEX = frozenset([int(RecordKind.PAD), int(RecordKind.SEAL), int(RecordKind.WITNESS)])


class Header(NamedTuple):
    """The fields of HEADER, in the order of the disk."""

    magic: bytes
    header_crc: int
    body_crc: int
    body_bytes: int
    record_index: int  # `index` and `count` are methods of every tuple
    durable_index: int
    epoch: int
    chain: int
    kind: int
    flags: int
    version: int
    message_count: int
    stream_id: int
    base_offset: int


def crc32c(data: bytes, crc: int = 0) -> int:
    """CRC-32C, continued from `crc`; one place that knows the package is untyped."""
    result: int = _extend(crc, data)
    return result


def padded(size: int, align: int = ALIGN_BYTES) -> int:
    """`size` rounded up; align is a power of two."""
    return (size + align - 1) & -align


def build_body(columns: bytes, payload: bytes) -> tuple[bytes, int]:
    """What stands before the payload, and the CRC of both; the payload itself is not copied."""
    prefix = len(columns).to_bytes(COLUMNS_LENGTH_BYTES, "big") + columns
    return prefix, _extend(_value(prefix), payload)


def build_header(
    salt_crc: int,
    body_crc: int,
    body_bytes: int,
    durable_index: int,
    epoch: int,
    chain: int,
    record: Record,
) -> tuple[bytes, int]:
    """A header and its CRC, which is the next record's chain.

    Args:
        salt_crc: crc32c of the segment's salt.
        durable_index: the highest index known to be synced at this moment.
        chain: header_crc of the record before, or the segment header's crc.
    """
    summed = _SUMMED.pack(
        body_crc,
        body_bytes,
        record.index,
        durable_index,
        epoch,
        chain,
        record.kind,
        0,
        RECORD_VERSION,
        record.count,
        record.stream_id,
        record.base_offset,
    )
    crc = _extend(salt_crc, summed)
    return MAGIC + crc.to_bytes(4, "big") + summed, crc


def parse_header(data: bytes, at: int, salt_crc: int) -> Header | None:
    """The header at `at` if it is whole and of this segment; None otherwise."""
    if len(data) < at + HEADER_BYTES or data[at : at + 4] != MAGIC:
        return None
    header = Header._make(HEADER.unpack_from(data, at))
    if _extend(salt_crc, data[at + 8 : at + HEADER_BYTES]) != header.header_crc:
        return None
    return header if max(header.record_index, header.durable_index) <= INTEGER_MAX else None


def parse_body(data: bytes, at: int, body_bytes: int, body_crc: int) -> tuple[bytes, bytes] | None:
    """Columns and payload of the body at `at`; None when its CRC or its inner length is wrong."""
    end = at + body_bytes
    split = at + COLUMNS_LENGTH_BYTES + int.from_bytes(data[at : at + COLUMNS_LENGTH_BYTES], "big")
    if split > end or end > len(data):
        return None
    prefix = data[at:split]
    payload = data[split:end]
    if _extend(_value(prefix), payload) != body_crc:
        return None
    return prefix[COLUMNS_LENGTH_BYTES:], payload


def record_of(header: Header, columns: bytes, payload: bytes) -> Record:
    """The broker's view of a verified record."""
    return Record(
        index=header.record_index,
        kind=header.kind,
        stream_id=header.stream_id,
        base_offset=header.base_offset,
        count=header.message_count,
        columns=columns,
        payload=payload,
    )
