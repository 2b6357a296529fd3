"""What one sync covers: records laid out for one write, filled up to 4 KiB. FORMAT.md 4."""

from collections.abc import Iterator

from patterns.wire.records import Damage, Record, RecordKind, encode_lost
from zbroker.store.record import COMMIT_ALIGN_BYTES, HEADER_BYTES, build_body, build_header, padded

LOSSES_PER_RECORD = 1000  # about 100 KB of LOST record
JOIN_BYTES = 16 << 10  # payloads below are joined into one iovec; above, an iovec costs less than the copy


class Group:
    """Records that one sync will cover, with their places; all in one segment."""

    __slots__ = ("end", "entries", "segment", "start")

    def __init__(self, segment: int, start: int) -> None:
        self.segment = segment
        self.start = start
        self.end = start
        self.entries: list[tuple[Record, bytes, int]] = []  # record, what precedes its payload, CRC of both


def build_commit(group: Group, salt_crc: int, epoch: int, chain: int, durable_index: int) -> tuple[list[bytes], int]:
    """The iovecs of a commit, its PAD included, and the chain after it.

    Headers are built here and not at append, so that each carries the durable index of its writing.
    """
    parts: list[bytes] = []
    small: list[bytes] = []
    for record, prefix, body_crc in group.entries:
        payload = record.payload
        body_bytes = len(prefix) + len(payload)
        header, chain = build_header(salt_crc, body_crc, body_bytes, durable_index, epoch, chain, record)
        small += (header, prefix)
        if len(payload) >= JOIN_BYTES:
            parts += (b"".join(small), payload)
            small = []
        else:
            small.append(payload)
        small.append(bytes(-body_bytes % HEADER_BYTES))
    gap = -group.end % COMMIT_ALIGN_BYTES
    if gap:
        pad = Record(group.entries[-1][0].index, RecordKind.PAD)
        header, chain = build_header(salt_crc, 0, gap - HEADER_BYTES, durable_index, epoch, chain, pad)
        small += (header, bytes(gap - HEADER_BYTES))
    parts.append(b"".join(small))
    return parts, chain


def witness_group(segment: int, start: int, durable_index: int) -> Group:
    """A commit of a WITNESS alone."""
    group = Group(segment, start)
    prefix, body_crc = build_body(b"", b"")
    group.entries.append((Record(durable_index, RecordKind.WITNESS), prefix, body_crc))
    group.end += padded(HEADER_BYTES + len(prefix))
    return group


def lost_records(damage: list[Damage], first_index: int) -> Iterator[Record]:
    """LOST records that tell of it."""
    for number, start in enumerate(range(0, len(damage), LOSSES_PER_RECORD)):
        payload = encode_lost(damage[start : start + LOSSES_PER_RECORD])
        yield Record(index=first_index + number, kind=RecordKind.LOST, payload=payload)
