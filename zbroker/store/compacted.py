"""A compacted segment: the batches that were left of one, by stream and offset, closed by a SEAL. FORMAT.md 7.4.

How it is laid out, and how it is read as a whole; compaction.py makes one.
"""

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from patterns.wire.records import LostRange, Position, Record, RecordKind
from zbroker.store.disk import Disk
from zbroker.store.liveness import Span
from zbroker.store.record import HEADER_BYTES, Header, crc32c, padded, parse_body, parse_header, record_of
from zbroker.store.segment import BLOCK_BYTES, SegmentHeader, data_end
from zbroker.store.window import Window, find_header

EMPTY_BYTES: Final = 3 * BLOCK_BYTES  # of one in which nothing is left: two header blocks and a SEAL
CHAIN_UNKNOWN: Final = -1  # the record before is unreadable
UNBOUNDED: Final = 1 << 63


class Seal(msgspec.Struct, frozen=True):
    """What the last record says of all the others.

    Attributes:
        records: how many come before it.
        last_index: of the segment as it was written.
        spans: of the segment as it was written: what is not among the records was wanted by nobody.
    """

    records: int
    last_index: int
    spans: list[Span]


class Content(msgspec.Struct):
    """What was found in a compacted segment.

    Attributes:
        records, bytes: that are whole.
        rotten: records whose header is whole and whose body is not.
        lost_bytes: that hold no whole record.
        seal: None when it is not readable.
    """

    records: int = 0
    bytes: int = 0
    rotten: list[LostRange] = []
    lost_bytes: int = 0
    seal: Seal | None = None

    @property
    def is_whole(self) -> bool:
        """Nothing is missing."""
        seal = self.seal
        return seal is not None and not self.rotten and not self.lost_bytes and seal.records == self.records


def first_chain(header: SegmentHeader) -> int:
    """What the first record is chained to: not to the header, which is written last, when the file's length is known."""
    return crc32c(header.salt)


def look_through(
    disk: Disk, path: str, size: int, header: SegmentHeader, visit: Callable[[Record, Position], None]
) -> Content:
    """Read all of it, in the order of the file, verified; what is damaged is stepped over and counted."""
    content = Content(rotten=[])
    window = Window(disk, path, size)
    try:
        for _ in walk(window, header, content, visit):
            pass
    finally:
        window.close()
    return content


def walk(
    window: Window, header: SegmentHeader, content: Content, visit: Callable[[Record, Position], None]
) -> Iterator[int]:
    """The same record by record; yields the bytes of each. `content` is filled on the way."""
    offset, chain, end = BLOCK_BYTES, first_chain(header), data_end(header.segment_bytes)
    while True:
        found = _header_at(window, offset, header, chain)
        if found is None:
            island = find_header(window, offset + 1, header, 0, UNBOUNDED)
            content.lost_bytes += (end if island is None else island[0]) - offset
            if island is None:
                return
            offset, chain = island[0], CHAIN_UNKNOWN
            continue
        _take(window, offset, header, found, content, visit)
        if found.kind == RecordKind.SEAL:
            return
        chain = found.header_crc
        size = HEADER_BYTES + found.body_bytes
        offset += padded(size)
        yield size


def _header_at(window: Window, offset: int, header: SegmentHeader, chain: int) -> Header | None:
    at = window.load(offset, HEADER_BYTES)
    found = parse_header(window.data, at, crc32c(header.salt))
    if found is None or found.epoch != header.epoch or chain not in (found.chain, CHAIN_UNKNOWN):
        return None
    return found if offset + HEADER_BYTES + found.body_bytes <= data_end(header.segment_bytes) else None


def _take(
    window: Window,
    offset: int,
    header: SegmentHeader,
    found: Header,
    content: Content,
    visit: Callable[[Record, Position], None],
) -> None:
    size = HEADER_BYTES + found.body_bytes
    at = window.load(offset, size)
    body = parse_body(window.data, at + HEADER_BYTES, found.body_bytes, found.body_crc)
    if found.kind == RecordKind.SEAL:
        content.seal = None if body is None else seal_of(body[1])
    elif body is None:
        lost = LostRange(found.record_index, found.kind, found.stream_id, found.base_offset, found.message_count)
        content.rotten.append(lost)
    else:
        content.records += 1
        content.bytes += size
        visit(record_of(found, *body), Position(header.number, offset, size, header.generation))


def seal_of(payload: bytes) -> Seal | None:
    """What a SEAL says; None when these bytes are none."""
    try:
        return msgspec.msgpack.decode(payload, type=Seal)
    except (msgspec.MsgspecError, UnicodeError):
        return None


def is_whole(disk: Disk, path: str, size: int, header: SegmentHeader) -> bool:
    """Whether every record that it ever held is there."""
    return look_through(disk, path, size, header, lambda record, position: None).is_whole


def cut_off(content: Content, kept: dict[int, int]) -> list[LostRange]:
    """Offsets that were given and of which no record is left to say so, at the end of each stream.

    Args:
        kept: by stream id, the offset after the last one that a record names.
    """
    ends = [] if content.seal is None else content.seal.spans
    pieces = ((stream_id, max(first, kept.get(stream_id, 0)), last) for stream_id, first, last in ends)
    return [
        LostRange(0, RecordKind.APPEND, stream_id, first, last - first + 1)
        for stream_id, first, last in pieces
        if first <= last
    ]
