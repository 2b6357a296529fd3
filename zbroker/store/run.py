"""A run: records that follow one another without a fault. The one loop whose speed decides how long a start takes.

So it is written out: one unpack, two CRCs, two slices, two structs for a record, no call of ours but `visit`.
"""

from collections.abc import Callable
from typing import NamedTuple

from google_crc32c import extend, value

from patterns.wire.records import Position, Record
from zbroker.store.record import HEADER, HEADER_BYTES, MAGIC, WITHOUT_INDEX, Header, padded
from zbroker.store.segment import SegmentHeader, data_end
from zbroker.store.window import Window

Visit = Callable[[Record, Position], None]

CHAIN_UNKNOWN = -1  # the record before is unreadable; the next one is not asked for it


class Run(NamedTuple):
    """Where a run ended and what it held.

    `rotten` is the header of the next record when that is whole and its body is not.
    """

    offset: int
    chain: int
    expected: int
    records: int
    record_bytes: int
    rotten: Header | None


def read_run(window: Window, header: SegmentHeader, start: Run, bound: int, visit: Visit) -> Run:
    """Visit records while each is whole, of this epoch, chained, next in index, and below `bound`."""
    offset, chain, expected, records, record_bytes, rotten = start
    number, salt_crc, end = header.number, value(header.salt), data_end(header.segment_bytes)
    unpack, data, base = HEADER.unpack_from, window.data, window.base
    while offset + HEADER_BYTES <= end:
        at = offset - base
        if at < 0 or at + HEADER_BYTES > len(data):
            at = window.load(offset, HEADER_BYTES)
            data, base = window.data, window.base
            if at + HEADER_BYTES > len(data):
                break
        fields = unpack(data, at)
        magic, crc, body_crc, body_bytes, index, _, epoch, link, kind, _, _, count, stream, first = fields
        if magic != MAGIC or extend(salt_crc, data[at + 8 : at + 64]) != crc or epoch != header.epoch:
            break
        size = HEADER_BYTES + body_bytes
        if (link != chain and chain != CHAIN_UNKNOWN) or offset + size > end:
            break
        if kind in WITHOUT_INDEX:
            if index != expected - 1:
                break
        elif index != expected or index >= bound:
            break
        else:
            if at + size > len(data):
                at = window.load(offset, size)
                data, base = window.data, window.base
            split = at + 68 + int.from_bytes(data[at + 64 : at + 68], "big")
            prefix, payload = data[at + 64 : split], data[split : at + size]
            if not split <= at + size <= len(data) or extend(value(prefix), payload) != body_crc:
                rotten = Header._make(fields)
                break
            visit(Record(index, kind, stream, first, count, prefix[4:], payload), Position(number, offset, size))
            expected, records, record_bytes = expected + 1, records + 1, record_bytes + size
        chain = crc
        offset += padded(size)
    return Run(offset, chain, expected, records, record_bytes, rotten)
