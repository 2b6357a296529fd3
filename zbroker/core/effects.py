"""What the broker's engine asks of its loop besides sending: effects as data."""

from __future__ import annotations

import msgspec

from patterns.wire.engine import Close, Send
from patterns.wire.records import Position, Record


class Append(msgspec.Struct, frozen=True, gc=False):
    """Write this record to the journal; what depends on it waits for persisted(record.index)."""

    record: Record


class Read(msgspec.Struct, frozen=True, gc=False):
    """Read records back; the loop answers with loaded(token, records), None for each that is damaged."""

    token: int
    positions: list[Position]


Effect = Send | Close | Append | Read
