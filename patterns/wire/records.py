"""What the broker and its journal hand to one another: records, places, and accounts of damage.

Pure values, known to both sides of the arrow `zbroker.core | zbroker.store -> patterns.wire`. How they lie on
the disk is zbroker/store/FORMAT.md's business; nothing here knows it.
"""

from collections.abc import Iterable
from enum import IntEnum
from typing import Protocol

import msgspec


class RecordKind(IntEnum):
    """Kinds of record; the numbers are on disk and are never reassigned."""

    PAD = 0  # fills a commit up to the next 4 KiB; takes no index; never handed to anybody
    APPEND = 1  # a batch of messages of one stream
    OPS = 2  # absolute, idempotent operations: acks, floors, attempts
    TXN = 3  # reserved: several entries, all or none
    CATALOG = 4  # streams, groups and what else has a name
    SEAL = 5  # reserved: a segment's index at its end; takes no index
    WITNESS = 6  # says that all before it was synced; takes no index; never handed to anybody
    LOST = 7  # what damage took, written by the journal itself when it opens; payload: `encode_lost`


FIRST_INDEX = 1  # 0 is "nothing yet": so a durable index of 0 and a stream id of 0 need no flag beside them


class Record(msgspec.Struct, frozen=True, gc=False):
    """One entry of the log.

    `index` is dense and given by the broker. `stream_id`, `base_offset` and `count` stand in the record's
    header under a checksum of their own, so that a rotten body still names what was lost.
    """

    index: int
    kind: int
    stream_id: int = 0
    base_offset: int = 0
    count: int = 0
    columns: bytes = b""
    payload: bytes = b""


class Position(msgspec.Struct, frozen=True, gc=False):
    """Where a record lies: segment number, byte offset in it, bytes of header and body; generation of the segment's file."""

    segment: int
    offset: int
    size: int
    generation: int = 0


class Move(msgspec.Struct, frozen=True, gc=False):
    """A batch lies elsewhere from now on, perhaps without those of its messages that were forgotten; None: it is gone whole."""

    segment: int
    stream_id: int
    base_offset: int
    position: Position | None


class LostRange(msgspec.Struct, frozen=True, gc=False):
    """A record whose body is rotten and whose header is whole: exactly what is lost."""

    index: int
    kind: int
    stream_id: int
    base_offset: int
    count: int


class Damage(msgspec.Struct, frozen=True):
    """A hole in what had been confirmed.

    Attributes:
        first_index, last_index: the records lost, both included.
        segment, offset: where the hole begins.
        lost_bytes: bytes of the hole whose headers are unreadable. 0 when `ranges` says all there is to say.
            Otherwise any stream may have lost messages here: each stream without an APPEND of a later index
            must jump its next offset by lost_bytes (a message takes at least one): none is used twice.
        ranges: the records of the hole whose headers are whole.
        reason: for people: "body", "header", "segment header", "segment missing" or "compacted".
    """

    first_index: int
    last_index: int
    segment: int
    offset: int
    lost_bytes: int
    ranges: list[LostRange]
    reason: str


class Opened(msgspec.Struct, frozen=True):
    """What opening a journal found.

    Attributes:
        epoch: grows with every open, for ever.
        next_index: what the first appended record must carry.
        records, bytes: visited.
        damage: every known hole, those of earlier opens included; each stands in a visited LOST record.
        torn_bytes: from the end of the log to the last byte that is not zero; never confirmed, void by now.
        segments: that are there, in order; empty when nobody says. What lay in others is gone.
    """

    epoch: int
    next_index: int
    records: int
    bytes: int
    damage: list[Damage]
    torn_bytes: int
    segments: list[int] = []


class Restorer(Protocol):
    """Who made a checkpoint, and is shown one when its journal is opened: restore, then index or reindex, then records.

    The chunks are its own bytes, which the journal does not understand.
    """

    def restore(self, chunks: Iterable[bytes]) -> bool:
        """Take over the state of one checkpoint; False, and as before, when it cannot be understood."""
        ...

    def index(self, chunk: bytes) -> bool:
        """Take over where records lie; what is known is passed over. False when it cannot be understood."""
        ...

    def reindex(self, record: Record, position: Position) -> None:
        """Note where a record lies that is part of the restored state; its index was lost."""
        ...


def encode_lost(damage: list[Damage]) -> bytes:
    """The payload of a LOST record."""
    return msgspec.msgpack.encode(damage)


def decode_lost(payload: bytes) -> list[Damage]:
    """What a LOST record says.

    Raises:
        msgspec.DecodeError: these bytes are no LOST payload.
    """
    return msgspec.msgpack.decode(payload, type=list[Damage])
