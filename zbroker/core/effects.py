"""What the broker's engine asks of its loop besides sending: effects as data."""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from patterns.wire.engine import Close, Link, Send
from patterns.wire.frames import Frames
from patterns.wire.records import Position, Record

SESSIONS: Final[Link] = 0  # a peer is a routing id
PLAIN_PUBLISHERS: Final[Link] = (
    1  # a peer is the number of its connection's fd; nobody, when libzmq does not know it any more
)
PLAIN_SUBSCRIBERS: Final[Link] = 2  # likewise


class Append(msgspec.Struct, frozen=True, gc=False):
    """Write this record to the journal; what depends on it waits for persisted(record.index)."""

    record: Record


class Moved(Enum):
    """In the place of a record whose file is gone: it lies elsewhere by now, or nobody should want it any more."""

    MOVED = 1


MOVED: Final = Moved.MOVED


class Read(msgspec.Struct, frozen=True, gc=False):
    """Read records back; the loop answers with loaded(token, records), in a later turn; None for each that is damaged."""

    token: int
    positions: list[Position]


class Forget(msgspec.Struct, frozen=True, gc=False):
    """Nobody is owed these any more, and that is durable: stream id, first and last offset."""

    ranges: list[tuple[int, int, int]]


class Checkpoint(msgspec.Struct, frozen=True, gc=False):
    """Give this piece of a checkpoint to the journal; segment 0 is the state, others are segments' indexes."""

    chunk: bytes
    segment: int


class CheckpointEnd(msgspec.Struct, frozen=True, gc=False):
    """All of the checkpoint was said; records up to last_index may be reflected in it."""

    last_index: int


class Offer(msgspec.Struct, frozen=True, gc=False):
    """Give these messages to the plain subscribers' socket; what it drops, nobody learns."""

    messages: list[Frames]


Effect = Send | Close | Append | Read | Offer | Forget | Checkpoint | CheckpointEnd
