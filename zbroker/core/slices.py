"""Cutting out of a stored batch the messages that nobody wants any more, when the journal compacts its segment.

What is left keeps the batch's index, first offset and count; `kept` in its columns names the places that are there.
"""

from __future__ import annotations

import msgspec

from patterns.wire.frames import MSGPACK, pack_columns
from patterns.wire.records import Record
from patterns.wire.settled import Range
from zbroker.core.tail import UNREADABLE, Split, batch_of, stored_of

_encode = msgspec.msgpack.Encoder().encode


def sliced(record: Record, wanted: list[Range]) -> Record | None:
    """An APPEND record with only the messages at these offsets; None when its bytes make no sense, or none is there.

    Args:
        wanted: ranges of the stream's offsets, in order.
    """
    try:
        batch, stored = batch_of(record), stored_of(record)
        split = Split(batch)
    except UNREADABLE:
        return None
    there = batch.kept or [(0, batch.count - 1)]
    kept = _common(there, [(first - batch.base, last - batch.base) for first, last in wanted])
    if not kept:
        return None
    columns, payload = split.pick(_places(there, kept))
    stored.kept = kept
    stored.columns = pack_columns(columns, MSGPACK) if stored.columns else b""
    return msgspec.structs.replace(record, columns=_encode(stored), payload=payload)


def _common(there: list[Range], wanted: list[Range]) -> list[Range]:
    """What is in both; both are in order."""
    found: list[Range] = []
    place = 0
    for first, last in there:
        while place < len(wanted) and wanted[place][1] < first:
            place += 1
        at = place
        while at < len(wanted) and wanted[at][0] <= last:
            found.append((max(first, wanted[at][0]), min(last, wanted[at][1])))
            at += 1
    return found


def _places(there: list[Range], kept: list[Range]) -> list[slice]:
    """Where the kept ones stand among those that are there."""
    slices: list[slice] = []
    run, before = 0, 0  # messages in the runs that were passed
    for first, last in kept:
        while there[run][1] < first:
            before += there[run][1] - there[run][0] + 1
            run += 1
        at = before + first - there[run][0]
        slices.append(slice(at, at + last - first + 1))
    return slices
